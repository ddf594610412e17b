"""MSR-VTT with its films in two folders or in one, and the questions about them."""

from pathlib import Path

import pytest

from mmtrain.data.sources.public.msr_vtt import msr_vtt
from mmtrain.data.sources.public.msrvtt_qa import msrvtt_qa
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import files_are_there, rows_of, touch, write


def about(root: Path, name: str, *films: tuple[int, str]) -> None:
    videos = [
        {"video_id": f"video{n}", "category": 9, "split": split, "url": "", "start time": 1.0, "end time": 9.0, "id": n}
        for n, split in films
    ]
    sentences = [
        {"caption": f"a car {k}", "video_id": f"video{n}", "sen_id": 10 * n + k} for n, _ in films for k in range(2)
    ]
    write(root / name, {"info": {}, "videos": videos, "sentences": sentences})


@pytest.fixture
def told(tmp_path: Path) -> Path:
    about(tmp_path, "train_val_videodatainfo.json", (0, "train"), (6513, "validate"))
    about(tmp_path, "test_videodatainfo.json", (7010, "test"))
    return tmp_path


def films(*paths: Path) -> None:
    for path in paths:
        touch(path)


def test_films_have_captions_and_a_category(told: Path) -> None:
    films(*(told / f"TrainValVideo/video{n}.mp4" for n in (0, 6513)), told / "TestVideo/video7010.mp4")
    tables = msr_vtt(root=told)
    row = {"caption": ["a car 0", "a car 1"], "label": "vehicles/autos"}
    assert rows_of(tables) == {
        "train": [{"id": "video0", "video": "TrainValVideo/video0.mp4", **row}],
        "val": [{"id": "video6513", "video": "TrainValVideo/video6513.mp4", **row}],
        "test": [{"id": "video7010", "video": "TestVideo/video7010.mp4", **row}],
    }
    assert files_are_there(tables, "video")
    assert tables.names["test"].endswith("test_videodatainfo.json")


def test_all_films_in_one_folder_and_no_test(told: Path) -> None:
    films(told / "videos/all/video0.mp4", told / "videos/all/video6513.mp4")
    (told / "test_videodatainfo.json").unlink()
    tables = msr_vtt(root=told)
    assert list(tables.splits) == ["train", "val"] and files_are_there(tables, "video")


def test_questions(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("val", 6513), ("test", 7010)):
        requested = {"answer": "couch", "category_id": 14, "id": 5, "question": "what is there?", "video_id": number}
        write(tmp_path / f"{split}_qa.json", [requested])
        films(tmp_path / f"videos/video{number}.mp4")
    tables = msrvtt_qa(root=tmp_path)
    assert files_are_there(tables, "video")
    assert tables.splits["val"][0] == {
        "id": "val-5",
        "video": "videos/video6513.mp4",
        "question": "what is there?",
        "answer": "couch",
        "category": "kids/family",
    }
    (tmp_path / "val_qa.json").unlink()
    with pytest.raises(ConfigError, match=r"has no val_qa.json\n    fix: name a folder with train_qa.json"):
        msrvtt_qa(root=tmp_path)


def test_missing_films_are_said(told: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has no TrainValVideo \(nor .*\n    fix: name a folder with train_val_videodatainfo"
    ):
        msr_vtt(root=told)
