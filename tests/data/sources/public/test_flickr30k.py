"""Flickr30k with Karpathy's split, with the captions of its authors, and with those of Kaggle."""

from pathlib import Path

import pytest

from mmtrain.data.sources.public.flickr30k import flickr30k
from mmtrain.errors import ConfigError
from tests.data.parts import WHOLE
from tests.data.sources.public.parts import files_are_there, picture, rows_of, write

NUMBERS = range(10)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in NUMBERS:
        picture(tmp_path / f"flickr30k-images/{number}.jpg")
    return tmp_path


def test_karpathys_split(pictures: Path) -> None:
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": "A dog ."}, {"raw": " It runs ."}]}
        for n, split in enumerate(("train", "test", "val", "train"))
    ]
    write(pictures / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    tables = flickr30k(root=pictures, split=WHOLE)
    assert {split: [row["id"] for row in rows] for split, rows in rows_of(tables).items()} == {
        "train": ["0", "3"],
        "val": ["2"],
        "test": ["1"],
    }
    assert tables.splits["val"][0] == {
        "id": "2",
        "image": "flickr30k-images/2.jpg",
        "caption": ["A dog .", "It runs ."],
    }
    assert files_are_there(tables, "image")


def test_the_captions_of_the_authors_are_cut(pictures: Path) -> None:
    lines = [f"{n}.jpg#{k}\tA dog | number {n} .\n" for n in NUMBERS for k in range(5)]
    write(pictures / "results_20130124.token", "".join(lines))
    tables = flickr30k(root=pictures, split=WHOLE)
    assert {split: len(rows) for split, rows in rows_of(tables).items()} == {"train": 8, "val": 1, "test": 1}
    assert files_are_there(tables, "image")
    row = tables.splits["val"][0]
    assert row["caption"] == [f"A dog | number {row['id']} ."] * 5


def test_the_captions_of_kaggle_with_its_nested_folder(tmp_path: Path) -> None:
    for number in NUMBERS:
        picture(tmp_path / f"flickr30k_images/flickr30k_images/{number}.jpg")
    lines = [f"{n}.jpg| {k}| A dog .\n" for n in NUMBERS for k in range(2)]
    lines[-1] = "9.jpg| 1   A dog that runs .\n"  # as in the original for one picture
    write(tmp_path / "flickr30k_images/results.csv", "image_name| comment_number| comment\n" + "".join(lines))
    tables = flickr30k(root=tmp_path, split=WHOLE)
    rows = {row["id"]: row for result in rows_of(tables).values() for row in result}
    assert rows["9"]["caption"] == ["A dog .", "A dog that runs ."]
    assert len(rows) == 10 and files_are_there(tables, "image")


def test_faults_are_named(pictures: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has no dataset_flickr30k.json \(nor results_20130124.token.*\n    fix: name a folder"
    ):
        flickr30k(root=pictures, split=WHOLE)
    write(pictures / "results_20130124.token", "0.jpg#0\tA dog .\nhello\n")
    with pytest.raises(ConfigError, match="line 2 is not an image, its number and a caption: hello"):
        flickr30k(root=pictures, split=WHOLE)
    write(pictures / "results_20130124.token", "\n")
    with pytest.raises(ConfigError, match="has no rows"):
        flickr30k(root=pictures, split=WHOLE)
