"""Hateful Memes of both phases of the challenge."""

import json
from pathlib import Path

import pytest

from mmtrain.data.sources.public.hateful_memes import hateful_memes
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import files_are_there, picture, rows_of, write


def lines(root: Path, name: str, *numbers: int, labelled: bool = True) -> None:
    rows = []
    for number in numbers:
        picture(root / f"img/{number:05d}.png")
        row = {"id": number, "img": f"img/{number:05d}.png", "text": "look at this"}
        rows.append(row | ({"label": number % 2} if labelled else {}))
    write(root / name, "".join(json.dumps(row) + "\n" for row in rows))


def test_the_first_phase_has_a_test_without_labels(tmp_path: Path) -> None:
    lines(tmp_path, "train.jsonl", 1, 2)
    lines(tmp_path, "dev.jsonl", 3)
    lines(tmp_path, "test.jsonl", 4, labelled=False)
    tables = hateful_memes(root=tmp_path, unseen=False)
    assert rows_of(tables) == {
        "train": [
            {"id": "1", "image": "img/00001.png", "text": "look at this", "label": "1"},
            {"id": "2", "image": "img/00002.png", "text": "look at this", "label": "0"},
        ],
        "val": [{"id": "3", "image": "img/00003.png", "text": "look at this", "label": "1"}],
        "test": [{"id": "4", "image": "img/00004.png", "text": "look at this", "label": None}],
    }
    assert files_are_there(tables, "image")


def test_the_second_phase(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "dev_seen", "test_seen", "dev_unseen", "test_unseen")):
        lines(tmp_path, f"{name}.jsonl", number)
    ids = {
        unseen: [row["id"] for rows in rows_of(hateful_memes(root=tmp_path, unseen=unseen)).values() for row in rows]
        for unseen in (False, True)
    }
    assert ids == {False: ["0", "1", "2"], True: ["0", "3", "4"]}


def test_faults_are_named(tmp_path: Path) -> None:
    lines(tmp_path, "train.jsonl", 1)
    with pytest.raises(
        ConfigError, match=r"has no dev_seen.jsonl \(nor dev.jsonl\)\n    fix: name a folder with train.jsonl"
    ):
        hateful_memes(root=tmp_path, unseen=False)
