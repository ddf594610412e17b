"""Food-101 as its archive unpacks."""

from pathlib import Path

import pytest

from mmtrain.data.sources.public.food101 import food101
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import files_are_there, picture, rows_of, write

TRAIN = [f"{dish}/{number}" for dish in ("apple_pie", "waffles") for number in range(10)]


@pytest.fixture
def dishes(tmp_path: Path) -> Path:
    for name in [*TRAIN, "waffles/99"]:
        picture(tmp_path / f"images/{name}.jpg")
    write(tmp_path / "meta/train.txt", "\n".join(TRAIN))
    write(tmp_path / "meta/test.txt", "waffles/99\n")
    return tmp_path


def test_a_share_of_training_validates(dishes: Path) -> None:
    tables = food101(root=dishes, val=0.2)
    assert {split: len(table) for split, table in tables.splits.items()} == {"train": 16, "val": 4, "test": 1}
    assert list(tables.splits) == ["train", "val", "test"]
    assert tables.splits["test"][0] == {"id": "waffles/99", "image": "images/waffles/99.jpg", "label": "waffles"}
    assert files_are_there(tables, "image")
    assert {row["id"] for split in ("train", "val") for row in rows_of(tables)[split]} == set(TRAIN)
    assert rows_of(tables) == rows_of(food101(root=dishes, val=0.2))


def test_without_validation(dishes: Path) -> None:
    assert list(food101(root=dishes, val=0.0).splits) == ["train", "test"]


def test_faults_are_named(dishes: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.source.val = 1.5 is not a fraction"):
        food101(root=dishes, val=1.5)
    (dishes / "meta/test.txt").unlink()
    with pytest.raises(ConfigError, match=r"has no meta/test.txt\n    fix: name a folder with meta/train.txt"):
        food101(root=dishes, val=0.1)
