"""Questions about emoji: made of rows of the tables, one row each."""

import json
from pathlib import Path

import pytest

from mmtrain.data.sources import emoji_questions
from mmtrain.data.sources.emoji_questions import prepare_questions, questions_of

HAND = {"image": "images/a.png", "label": "People & Body", "base": "A"}
ROWS = [
    {"id": "A", "caption": ["hand"], **HAND},
    {"id": "A-1", "caption": ["hand: light skin tone", "Hand"], **HAND},
    {"id": "A-2", "caption": ["hands: light skin tone medium-dark skin tone"], **HAND},
    {"id": "B", "caption": ["cat"], "image": "images/b.png", "base": "B"},
]


def test_tones_are_asked_of_what_can_have_one_and_groups_of_what_has_one() -> None:
    results = [(row["id"], row["answer"]) for row in questions_of(ROWS)]
    assert results == [
        ("A-name", ["hand"]),
        ("A-group", ["People & Body"]),
        ("A-tone", ["none"]),
        ("A-1-name", ["hand: light skin tone", "Hand"]),
        ("A-1-group", ["People & Body"]),
        ("A-1-tone", ["light"]),
        ("A-2-name", ["hands: light skin tone medium-dark skin tone"]),
        ("A-2-group", ["People & Body"]),
        ("A-2-tone", ["light and medium-dark"]),
        ("B-name", ["cat"]),
    ]
    assert {row["image"] for row in questions_of(ROWS)} == {"../images/a.png", "../images/b.png"}
    assert len({row["id"] for row in questions_of(ROWS)}) == len(results)


def test_they_are_written_once_beside_the_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setattr(emoji_questions, "prepare_openmoji", lambda **parts: tmp_path)
    parts = {"cache_dir": tmp_path, "size": 64, "languages": ["en"], "split": {"train": 1.0}}
    folder = prepare_questions(**parts)  # type: ignore[arg-type]
    lines = (folder / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in questions_of(ROWS)]
    (folder / "train.jsonl").write_text("kept")
    assert (prepare_questions(**parts) / "train.jsonl").read_text() == "kept"  # type: ignore[arg-type]
