"""MELD as its archives unpack."""

import csv
from pathlib import Path

import pytest

from mmtrain.data.sources.public.meld import FOLDERS, TABLES, meld
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import rows_of, touch

HEAD = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode"]


@pytest.fixture
def friends(tmp_path: Path) -> Path:
    for split, name in TABLES.items():
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEAD)
            writer.writerow([1, "I\x92m fine, really", "Ross", "neutral", "neutral", 0, 0, 8, 21])
            writer.writerow([2, "Oh \x96 my", "Rachel", "surprise", "positive", 0, 1, 8, 21])
        touch(tmp_path / FOLDERS[split][0] / "dia0_utt0.mp4")
    return tmp_path


def test_an_utterance_has_words_clip_and_sound(friends: Path) -> None:
    tables = meld(root=friends)
    assert {split: len(rows) for split, rows in rows_of(tables).items()} == {"train": 2, "val": 2, "test": 2}
    first, second = tables.splits["val"]
    assert first == {
        "id": "val-dia0_utt0",
        "video": "dev_splits_complete/dia0_utt0.mp4",
        "audio": "dev_splits_complete/dia0_utt0.mp4",
        "text": "I’m fine, really",
        "speaker": "Ross",
        "label": "neutral",
        "sentiment": "neutral",
        "dialogue_id": "0",
        "turns": [{"speaker": "Ross", "text": "I’m fine, really"}],
        "reply": "Oh – my",
    }
    assert (tables.folder / first["video"]).is_file()
    assert (second["text"], second["video"], second["label"]) == ("Oh – my", None, "surprise")
    assert [turn["speaker"] for turn in second["turns"]] == ["Ross", "Rachel"] and second["reply"] is None


def test_faults_are_named(friends: Path) -> None:
    (friends / "dev_sent_emo.csv").write_text("Utterance,Speaker\nhello,Ross\n")
    with pytest.raises(
        ConfigError, match=r"dev_sent_emo.csv does not have the format of this data set: it has no 'Dialogue_ID'"
    ):
        meld(root=friends)
    (friends / "train_sent_emo.csv").unlink()
    with pytest.raises(
        ConfigError, match=r"has no train_sent_emo.csv .*\n    fix: name a folder with train_sent_emo.csv"
    ):
        meld(root=friends)
