"""Corruptions: the same for one (seed, row), more at a higher severity, and no other modality is touched."""

import json
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from PIL import Image

from mmtrain.build import build_data, compose
from mmtrain.config import settings
from mmtrain.data.corruptions import (
    LEVELS,
    NAMES,
    SEVERITIES,
    CorruptedSplit,
    Corruption,
    add_sound_noise,
    add_typos,
    applies_to,
    crop,
)
from mmtrain.data.dataset import EvalSplit
from mmtrain.data.sampling.subset import Subset, groups_of
from mmtrain.errors import ConfigError
from mmtrain.types import Sample
from tests.tiny import ROWS, TINY_MODEL, make_tables


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> EvalSplit:
    root = make_tables(tmp_path_factory.mktemp("corruptions") / "data")
    data = build_data(compose(["data=files", f"data.root={root}", *TINY_MODEL]))
    data.read(root / "run", training=True)
    return data.split("test")


def samples(split: Any) -> list[Sample]:
    return [split[(0, position)] for position in range(len(split))]


def corrupted(split: EvalSplit, name: str, modality: str, severity: int) -> list[Sample]:
    return samples(CorruptedSplit(split, Corruption(name, modality, severity)))


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_rules_know_every_corruption() -> None:
    assert get_args(settings.Corruption) == NAMES
    assert all(len(levels) == len(SEVERITIES) for levels in LEVELS.values())
    assert applies_to("noise", "audio") and not applies_to("typos", "image") and applies_to("missing", "sequence")


@pytest.mark.parametrize(("name", "modality"), [("noise", "image"), ("blur", "image"), ("crop", "image")])
def test_a_picture_changes_more_and_more_and_nothing_else_does(split: EvalSplit, name: str, modality: str) -> None:
    clean = samples(split)
    distances = []
    for severity in SEVERITIES:
        result, again = corrupted(split, name, modality, severity), corrupted(split, name, modality, severity)
        distance = 0.0
        for one, same, before in zip(result, again, clean, strict=True):
            assert one.keys == before.keys and one.inputs.keys() == before.inputs.keys()
            for m, value in before.inputs.items():
                assert torch.equal(one.inputs[m], same.inputs[m])
                assert m == modality or torch.equal(one.inputs[m], value)
            if modality in before.inputs:
                distance += float((one.inputs[modality] - before.inputs[modality]).abs().mean())
                assert one.inputs[modality].abs().max() <= 1.0 + 1e-6  # as clean ones: mean and std are 0.5
        distances.append(distance)
    assert distances[-1] > distances[0]
    assert all(more > 0.9 * less for less, more in pairwise(distances))  # small crops are about equally far away


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> EvalSplit:
    """Four equal frames a row."""
    root = tmp_path_factory.mktemp("films")
    Image.effect_noise((20, 20), 60).convert("RGB").save(root / "0.png")
    for name in ROWS:
        rows = [json.dumps({"video": ["0.png"] * 4, "label": label}) for label in ("up", "down", "up")]
        (root / f"{name}.jsonl").write_text("\n".join(rows))
    data = build_data(compose(["data=files", f"data.root={root}", "data.inputs.image.size=16", "data.batch_size=1"]))
    data.read(root / "run", training=True)
    return data.split("test")


@pytest.mark.parametrize(("name", "alike"), [("blur", True), ("crop", True), ("noise", False)])
def test_all_frames_of_a_film_are_blurred_and_cropped_alike_and_noise_is_of_each(
    films: EvalSplit, name: str, alike: bool
) -> None:
    clean, (result, other, _) = films[(0, 0)].inputs["video"], corrupted(films, name, "video", 4)
    first, *others = result.inputs["video"]
    assert result.inputs["video"].shape == clean.shape == (4, 3, 16, 16)
    assert not torch.equal(first, clean[0])
    assert all(torch.equal(first, frame) == alike for frame in others)
    if name != "blur":  # which draws nothing
        assert not torch.equal(result.inputs["video"], other.inputs["video"])
    assert torch.equal(result.inputs["video"], corrupted(films, name, "video", 4)[0].inputs["video"])


def test_a_caption_is_mistyped_and_its_content_stays_what_it_is(split: EvalSplit) -> None:
    clean, result = samples(split), corrupted(split, "typos", "text", 5)
    assert [one.keys for one in result] == [one.keys for one in clean]
    pairs = [(f.inputs["text"], c.inputs["text"]) for f, c in zip(result, clean, strict=True) if "text" in c.inputs]
    changed = [not torch.equal(after, before) for after, before in pairs]
    assert sum(changed) > len(changed) / 2


def test_what_is_missing_at_one_severity_is_missing_at_the_next(split: EvalSplit) -> None:
    gone: set[str] = set()
    for severity in SEVERITIES:
        result = corrupted(split, "missing", "text", severity)
        now = {one.id for one in result if "text" not in one.inputs}
        assert gone <= now
        gone = now
    assert len(gone) == ROWS["test"]
    assert [one.keys for one in result] == [one.keys for one in samples(split)]


def test_letters_are_wrong_about_as_often_as_is_said() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 50
    letters = sum(letter.isalpha() for letter in text)
    for level in (0.0, 0.1, 0.3):
        written = add_typos(text, level, draws())
        same = sum(a == b for a, b in zip(text, written, strict=False)) if level == 0.0 else None
        assert same in (None, len(text))
        assert abs(len(written) - len(text)) < 0.1 * letters
    assert add_typos(text, 0.1, draws(1)) != add_typos(text, 0.1, draws(2))
    assert all(add_typos("a", 1.0, draws(seed)) == "a" for seed in range(9))
    assert all(add_typos(" ?", 1.0, draws(seed)).strip() for seed in range(9))


def test_noise_is_so_many_decibels_below_the_sound() -> None:
    sound = torch.sin(torch.arange(16000) * 0.1)
    for decibels in (20.0, 0.0):
        noise = add_sound_noise(sound, decibels, draws()) - sound
        ratio = 10 * (sound.square().mean() / noise.square().mean()).log10()
        assert float(ratio) == pytest.approx(decibels, abs=0.3)


def test_a_crop_is_a_part_of_the_picture() -> None:
    picture = torch.arange(64.0).view(1, 8, 8).expand(3, 8, 8)
    part = crop(picture, 0.25, draws())
    assert part.shape == picture.shape
    assert part.max() - part.min() < picture.max() - picture.min()
    torch.testing.assert_close(crop(picture, 1.0, draws()), picture)


def test_groups_are_those_of_a_column(split: EvalSplit) -> None:
    groups = groups_of(split, "label", where="the test split")
    assert sorted(position for rows in groups.values() for position in rows) == list(range(len(split)))
    assert next(iter(groups)) == "(none)" and set(groups) <= {"(none)", "bar", "frame", "square"}
    bars = Subset(split, groups["bar"])
    result = bars.__getitems__([(0, 0), (0, -1), (0, len(bars) - 1)])
    assert [one.row for one in result] == [groups["bar"][0], -1, groups["bar"][-1]]
    with pytest.raises(ConfigError, match=r"test\.group_by=kind: the test split has the columns id, image"):
        groups_of(split, "kind", where="the test split")


def test_a_pictures_floats_go_there_and_back(split: EvalSplit) -> None:
    reader: Any = split.inputs["image"]
    value = next(s.inputs["image"] for s in samples(split) if "image" in s.inputs)
    torch.testing.assert_close(reader.normalize.of_floats(reader.normalize.undone(value)), value)
