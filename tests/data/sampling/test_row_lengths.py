"""What batches are made by: lengths as the model gets them, kept for the next start, or the values of a column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.sampling.buckets import Buckets
from mmtrain.data.sampling.row_lengths import row_lengths
from mmtrain.errors import ConfigError
from tests.data.films import tone, wav
from tests.data.parts import image_input, text_input

TEXTS = ["a cat", "a cat and a dog and an ant", None, "", ["a", "a cat and a dog"]]


def buckets(by: str | None, max_tokens: int | None = None) -> Buckets:
    return Buckets(by=by, window=4, max_tokens=max_tokens)


def lengths(by: str, cache: Path, cells: dict[str, list[Any]], inputs: dict[str, Any], **more: Any) -> list[int]:
    requested = {"columns": {name: name for name in inputs}, "inputs": inputs, "folder": cache, "cache": cache} | more
    return row_lengths(buckets(by), Dataset.from_dict(cells), **requested)[0].tolist()


def test_of_texts_the_tokens_of_the_longest_are_counted_as_they_will_be_cut(tmp_path: Path) -> None:
    texts = [t if isinstance(t, list) else [t] for t in TEXTS]
    reader = text_input(max_length=6)
    reader.fit(texts, tmp_path)
    result = lengths("text", tmp_path, {"text": texts}, {"text": reader})
    assert result == [len(reader.load("a cat", tmp_path, seed=0, train=False)[0]), 6, 0, 0, 6]


def test_what_was_measured_is_kept_until_a_knob_changes(tmp_path: Path) -> None:
    reader = text_input(max_length=8)
    reader.fit(TEXTS[:2], tmp_path)
    first = lengths("text", tmp_path, {"text": TEXTS[:2]}, {"text": reader})
    (kept,) = tmp_path.glob(".lengths_*.npy")
    np.save(kept, np.array([7, 7]))
    assert lengths("text", tmp_path, {"text": TEXTS[:2]}, {"text": reader}) == [7, 7]
    reader.max_length = 7
    assert lengths("text", tmp_path, {"text": TEXTS[:2]}, {"text": reader}) == first


def test_of_sounds_samples_are_counted_at_the_rate_that_the_model_hears(tmp_path: Path) -> None:
    for name, seconds in (("a.wav", 0.5), ("b.wav", 3.0)):
        (tmp_path / name).write_bytes(wav(tone(seconds, 44_100), rate=44_100))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    reader = AudioInput(sample_rate=8_000, max_seconds=2.0, noise=0.0, time_mask=0.0, freq_mask=0.0)
    result = lengths("audio", tmp_path, {"audio": ["a.wav", "b.wav", None, "broken.wav"]}, {"audio": reader})
    assert result == [4_000, 16_000, 0, 0]


def test_what_cannot_be_read_has_no_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = text_input(max_length=8)
    reader.fit(TEXTS[:2], tmp_path)
    table = Dataset.from_dict({"text": TEXTS[:2]})
    monkeypatch.setattr("mmtrain.data.sampling.row_lengths.cells_of", lambda *_: ["half \ud83d", "a cat"])
    given: dict[str, Any] = {"columns": {"text": "text"}, "folder": tmp_path, "cache": tmp_path}
    assert row_lengths(buckets("text"), table, inputs={"text": reader}, **given)[0].tolist() == [0, 4]
    sound = AudioInput(sample_rate=8_000, max_seconds=2.0, noise=0.0, time_mask=0.0, freq_mask=0.0)
    monkeypatch.setattr(sound, "load", lambda *_, **options: (_ for _ in ()).throw(MemoryError))
    monkeypatch.setattr("mmtrain.data.sampling.row_lengths.cells_of", lambda *_: [[0.1] * 4, None])
    assert row_lengths(buckets("text"), table, inputs={"text": sound}, **given)[0].tolist() == [0, 0]


def test_a_column_of_numbers_is_taken_as_it_is_and_one_of_words_by_value(tmp_path: Path) -> None:
    cells = {"seconds": [1.4, 20.0, None, 3.0], "base": ["b", None, "a", "b"]}
    assert lengths("seconds", tmp_path, cells, {}) == [1, 20, 0, 3]
    assert lengths("base", tmp_path, cells, {}) == [2, 0, 1, 2]


def test_what_has_no_length_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    cells = {"image": ["a.png"], "base": ["b"]}
    with pytest.raises(ConfigError, match="every image has the same size"):
        lengths("image", tmp_path, cells, {"image": image_input()})
    with pytest.raises(ConfigError, match=r"there are image, base\n    fix: set data.bucket.by to base"):
        lengths("bass", tmp_path, cells, {"image": image_input()})
    with pytest.raises(ConfigError, match="the column base has no lengths"):
        row_lengths(
            buckets("base", 100), Dataset.from_dict(cells), columns={}, inputs={}, folder=tmp_path, cache=tmp_path
        )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"window": 0}, "bucket.window = 0"),
        ({"max_tokens": 0}, "bucket.max_tokens = 0"),
        ({"by": None, "max_tokens": 9}, "has no effect without bucket.by"),
    ],
)
def test_knobs_that_mean_nothing_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Buckets(**{"by": "text", "window": 4, "max_tokens": None} | knobs)


class Sampled:
    """A table whose column is only a sample, as for shards."""

    column_names = ("text", "base")
    _fingerprint = "f"

    def __len__(self) -> int:
        return 5

    def __getitem__(self, column: str) -> list[str]:
        return ["a cat"] * 3


def test_a_table_that_is_only_sampled_is_refused(tmp_path: Path) -> None:
    reader = text_input(max_length=6)
    reader.fit(["a cat"], tmp_path)
    for by in ("text", "base"):
        with pytest.raises(ConfigError, match="only 3 of 5 are read in advance"):
            row_lengths(
                buckets(by),
                Sampled(),
                columns={"text": "text"},
                inputs={"text": reader},
                folder=tmp_path,
                cache=tmp_path,
            )
