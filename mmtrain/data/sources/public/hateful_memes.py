"""Hateful Memes (2005.04790): an image and its text; 1 means that the two together are hateful."""

import json
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.tables.tables import Tables

LOOKS = "train.jsonl, dev.jsonl (or dev_seen.jsonl), test.jsonl (or test_seen.jsonl) and img/"
FILES = {
    "train": ("train.jsonl",),
    "val": ("dev_seen.jsonl", "dev.jsonl"),
    "test": ("test_seen.jsonl", "test.jsonl"),
}


def hateful_memes(*, root: str | Path, unseen: bool) -> Tables:
    """The tables: id, image, text, label ("0" or "1").

    A test file without labels, as in the first version of the challenge, has unlabelled rows.

    Args:
        root: folder of the data set.
        unseen: whether to use dev_unseen and test_unseen, of the second phase of the challenge.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    layout.need("img")
    names = FILES | ({"val": ("dev_unseen.jsonl",), "test": ("test_unseen.jsonl",)} if unseen else {})
    files = {split: layout.need(*candidates) for split, candidates in names.items()}
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, file in files.items():
        with layout.reading(file):
            rows[split] = [_row(json.loads(line)) for line in layout.lines(file)]
    return layout.tables(rows, files)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    label = line.get("label")
    return {
        "id": str(line["id"]),
        "image": line["img"],
        "text": line["text"],
        "label": None if label is None else str(label),
    }
