"""COCO Captions as it is downloaded, and with Karpathy's split over either year's folders."""

from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.sources.public.coco_captions import coco_captions
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import files_are_there, picture, rows_of, write


def annotations(number: int, *captions: str) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": number, "file_name": f"{number:012d}.jpg", "height": 6, "width": 8}],
        "annotations": [{"image_id": number, "id": n, "caption": caption} for n, caption in enumerate(captions)],
    }


@pytest.fixture
def of_2017(tmp_path: Path) -> Path:
    write(tmp_path / "annotations/captions_train2017.json", annotations(9, "A dog.\n", "Two dogs."))
    write(tmp_path / "annotations/captions_val2017.json", annotations(4, "A cat."))
    picture(tmp_path / "train2017/000000000009.jpg")
    picture(tmp_path / "val2017/000000000004.jpg")
    return tmp_path


KARPATHY = {
    "images": [
        {
            "filepath": f,
            "filename": f"COCO_{f}_{n:012d}.jpg",
            "cocoid": n,
            "split": s,
            "sentences": [{"raw": "A dog. "}],
        }
        for f, n, s in (
            ("train2014", 9, "train"),
            ("val2014", 7, "restval"),
            ("val2014", 4, "val"),
            ("val2014", 5, "test"),
        )
    ]
}


def test_the_split_of_2017(of_2017: Path) -> None:
    tables = coco_captions(root=of_2017)
    assert rows_of(tables) == {
        "train": [{"id": "9", "image": "train2017/000000000009.jpg", "caption": ["A dog.", "Two dogs."]}],
        "val": [{"id": "4", "image": "val2017/000000000004.jpg", "caption": ["A cat."]}],
    }
    assert files_are_there(tables, "image")
    assert tables.names["val"].endswith("captions_val2017.json")


def test_karpathys_split_finds_the_pictures_of_2017(of_2017: Path) -> None:
    write(of_2017 / "dataset_coco.json", KARPATHY)
    picture(of_2017 / "train2017/000000000007.jpg")
    picture(of_2017 / "train2017/000000000005.jpg")
    tables = coco_captions(root=of_2017)
    assert {s: [(r["id"], r["image"]) for r in rows] for s, rows in rows_of(tables).items()} == {
        "train": [("9", "train2017/000000000009.jpg"), ("7", "train2017/000000000007.jpg")],
        "val": [("4", "val2017/000000000004.jpg")],
        "test": [("5", "train2017/000000000005.jpg")],
    }
    assert files_are_there(tables, "image")
    assert rows_of(tables)["test"][0]["caption"] == ["A dog."]


def test_karpathys_split_finds_the_pictures_of_2014(tmp_path: Path) -> None:
    write(tmp_path / "annotations/dataset_coco.json", KARPATHY)
    picture(tmp_path / "train2014/COCO_train2014_000000000009.jpg")
    for number in (7, 4, 5):
        picture(tmp_path / f"val2014/COCO_val2014_{number:012d}.jpg")
    assert files_are_there(coco_captions(root=tmp_path), "image")


def test_what_is_missing_is_named_with_the_layout(of_2017: Path) -> None:
    (of_2017 / "annotations/captions_val2017.json").unlink()
    with pytest.raises(
        ConfigError, match=r"has no annotations/captions_val2017.json\n    fix: name a folder with annotations/"
    ):
        coco_captions(root=of_2017)
    with pytest.raises(
        ConfigError, match=r"data.root = .*nothing does not exist\n    fix: set data.root to a folder with"
    ):
        coco_captions(root=of_2017 / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"images": [', "Expecting value"), ({"images": []}, "it has no 'annotations'"), ([], "list")],
)
def test_a_file_that_is_not_the_sets_own_is_named(of_2017: Path, content: Any, message: str) -> None:
    write(of_2017 / "annotations/captions_val2017.json", content)
    with pytest.raises(
        ConfigError, match=r"captions_val2017.json does not have the format of this data set.*\n    fix: download"
    ) as e:
        coco_captions(root=of_2017)
    assert message in str(e.value)
