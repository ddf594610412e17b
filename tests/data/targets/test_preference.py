"""Preferences: two columns by one tokenizer, that of the chosen one alone."""

from pathlib import Path

import pytest
import torch

from mmtrain.data.targets.preference import Preference
from mmtrain.data.targets.text import TextTarget
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import PairTarget
from tests.data.inputs.test_text import text_input

CHOSEN = ["a red cat", ["a dog", "a blue dog"], "", "two birds"]
REJECTED = ["a red dog", "zebra", "a cat", None]
CELLS = [list(pair) for pair in zip(CHOSEN, REJECTED, strict=True)]


def target(kind: type[TextTarget] = Preference, keep: bool = False) -> TextTarget:
    return kind(text=text_input(algorithm="wordpiece", vocab_size=200), keep_references=keep)


def test_the_tokenizer_is_that_of_the_chosen_column(tmp_path: Path) -> None:
    pair, plain = target(), target(TextTarget)
    pair.fit(CELLS, tmp_path)
    plain.fit(CHOSEN, tmp_path)
    assert isinstance(pair.known, PairTarget) and pair.known.names == plain.known.names
    loaded = [pair.load(cell) for cell in CELLS]
    assert loaded[2] is None
    first = loaded[0]
    assert first is not None and first.shape[0] == 2
    assert [pair.words(side.tolist()) for side in first] == ["a red cat", "a red dog"]
    batch = pair.pad(loaded)
    assert batch.shape[:2] == (4, 2)
    assert not batch[2].any() and not batch[3, 1].any()
    assert pair.words(batch[3, 0].tolist()) == "two birds"
    assert torch.equal(pair.pad([None, None]), torch.zeros(2, 2, 1, dtype=torch.long))
    assert pair.references(CELLS[1]) == ["a dog", "a blue dog"]


def test_of_three_columns_the_first_is_what_is_right(tmp_path: Path) -> None:
    pair, plain = target(), target(TextTarget)
    pair.fit([["a red cat", "a cat", "a dog"], [["two birds", "birds"], None, "a dog"]], tmp_path)
    plain.fit(["a red cat", ["two birds", "birds"]], tmp_path)
    assert pair.known.names == plain.known.names
    first, second = pair.load(["a red cat", "a cat", "birds"]), pair.load(["two birds", None, "a cat"])
    assert first is not None and [pair.words(side.tolist()) for side in first] == ["a cat", "birds"]
    assert second is not None and [pair.words(side.tolist()) for side in second] == ["two birds", ""]
    assert pair.references(["a red cat", "a cat", "birds"]) == ["a red cat"]


@pytest.mark.parametrize("kind", [TextTarget, Preference])
def test_sentences_are_kept_if_asked(kind: type[TextTarget], tmp_path: Path) -> None:
    cells = CHOSEN if kind is TextTarget else CELLS
    for keep in (True, False):
        made, again = target(kind, keep), target(kind, keep)
        made.fit(cells, tmp_path)
        made.save(tmp_path, "written")
        again.restore(tmp_path, "written")
        expected = [["a red cat"], ["a dog", "a blue dog"], ["two birds"]] if keep else []
        assert made.known.sentences == again.known.sentences == expected
        assert type(again.known) is type(made.known)


@pytest.mark.parametrize("cell", ["a cat", ["a cat"], ["a", "b", "c", "d"]])
def test_what_is_not_of_two_columns_is_refused(cell: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has two or three columns.*\n.*data.columns.NAME=\[CHOSEN,REJECTED\]"):
        target().fit([cell], tmp_path)


def test_one_cell_of_another_form_is_set_aside(tmp_path: Path) -> None:
    made, plain = target(), target()
    made.fit(["a cat", *CELLS, None], tmp_path)
    plain.fit(CELLS, tmp_path)
    assert made.known.names == plain.known.names
    for cell in ("a cat", None, ["a", "b", "c", "d"], ["half \ud83d", "b"]):
        with pytest.raises(SampleError, match=r"has two or three columns|half of a surrogate pair"):
            made.load(cell)
