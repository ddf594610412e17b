"""MELD (1810.02508): utterances in Friends, with the clip; emotion and sentiment of each utterance, in its dialogue.

A few clips are missing in the archives. Their rows are kept, with their text.
"""

import csv
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.tables.tables import Tables

LOOKS = (
    "train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, and dia0_utt0.mp4 ... in train_splits/,"
    " dev_splits_complete/ and output_repeated_splits_test/"
)
TABLES = {"train": "train_sent_emo.csv", "val": "dev_sent_emo.csv", "test": "test_sent_emo.csv"}
FOLDERS = {
    "train": ("train_splits", "train/train_splits"),
    "val": ("dev_splits_complete", "dev/dev_splits_complete", "dev_splits"),
    "test": ("output_repeated_splits_test", "test/output_repeated_splits_test", "test_splits"),
}
# The tables have typographic quotes and dashes of Windows as control characters.
QUOTES = str.maketrans({c: bytes([c]).decode("cp1252") for c in (0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97)})


def meld(*, root: str | Path) -> Tables:
    """The tables: one row per utterance.

    id, video, audio (of the same clip), text, speaker, label (the emotion), sentiment, dialogue_id, turns (the dialogue
    up to and including the utterance) and reply (the next utterance, if there is one).

    Args:
        root: folder of the data set.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    files = {split: layout.need(name, f"annotations/{name}") for split, name in TABLES.items()}
    folders = {split: layout.need(*names) for split, names in FOLDERS.items()}
    rows = {split: _rows(layout, split, file, folders[split]) for split, file in files.items()}
    return layout.tables(rows, files)


def _rows(layout: Layout, split: str, file: Path, folder: Path) -> list[dict[str, Any]]:
    available = {path.name for path in folder.iterdir()}
    with layout.reading(file), file.open(newline="", encoding="utf-8-sig") as lines:
        return in_dialogues([_row(layout, split, row, folder, available) for row in csv.DictReader(lines)])


def _row(layout: Layout, split: str, row: dict[str, str], folder: Path, files: set[str]) -> dict[str, Any]:
    name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
    clip = f"{layout.inside(folder)}/{name}.mp4" if f"{name}.mp4" in files else None
    return {
        "id": f"{split}-{name}",  # every split counts its dialogues from 0
        "video": clip,
        "audio": clip,
        "text": row["Utterance"].translate(QUOTES),
        "speaker": row["Speaker"].translate(QUOTES),
        "label": row["Emotion"],
        "sentiment": row["Sentiment"],
        "dialogue_id": row["Dialogue_ID"],
        "place": int(row["Utterance_ID"]),
    }


def in_dialogues(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in order, each with the turns up to it and the text of the next one; without their positions."""
    dialogues: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        dialogues.setdefault(row["dialogue_id"], []).append(row)
    for dialogue in dialogues.values():
        dialogue.sort(key=lambda row: row["place"])
        turns = [{"speaker": row["speaker"], "text": row["text"]} for row in dialogue]
        replies = [*(row["text"] for row in dialogue[1:]), None]
        for number, (row, reply) in enumerate(zip(dialogue, replies, strict=True), start=1):
            row["turns"], row["reply"] = turns[:number], reply
            del row["place"]
    return rows
