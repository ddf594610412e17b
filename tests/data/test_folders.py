"""Class folders, a lone table and what `datasets` saved: every usual place gives tables."""

import json
from pathlib import Path

import datasets
import pytest

from mmtrain.data.files import read_folder
from mmtrain.data.folders import read_class_folders
from mmtrain.data.heads import heads_of
from mmtrain.data.paths import UnconfinedFolder
from mmtrain.errors import ConfigError
from tests.data.parts import WHOLE, draw_pictures


def classes(root: Path, *places: str, count: int = 10) -> Path:
    for place in places:
        (root / place).mkdir(parents=True)
        draw_pictures(root / place, count)
    return root


def test_folders_of_classes_are_cut(tmp_path: Path) -> None:
    tables = read_folder(classes(tmp_path, "cat", "dog/small", ".hidden"), WHOLE)
    rows = [row for table in tables.splits.values() for row in table]
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert {(row["label"], row["image"].rpartition("/")[0]) for row in rows} == {("cat", "cat"), ("dog", "dog/small")}
    assert all(row["id"] == row["image"] and (tmp_path / row["image"]).is_file() for row in rows)


def test_folders_of_splits_of_classes_are_splits(tmp_path: Path) -> None:
    tables = read_folder(classes(tmp_path, "train/cat", "train/dog", "validation/cat", count=3), WHOLE)
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 6, "val": 3}
    assert tables.splits["val"][0] == {"id": "validation/cat/0.png", "label": "cat", "image": "validation/cat/0.png"}


def test_sounds_and_films_have_columns_of_their_own(tmp_path: Path) -> None:
    for name in ("bark/a.WAV", "bark/b.mp4", "bark/notes.txt", "meow/c.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = read_class_folders(tmp_path, lambda columns: datasets.Dataset.from_dict(dict(columns)))
    assert found is not None
    assert list(found[None]) == [
        {"id": "bark/a.WAV", "label": "bark", "audio": "bark/a.WAV", "video": None},
        {"id": "bark/b.mp4", "label": "bark", "audio": None, "video": "bark/b.mp4"},
        {"id": "meow/c.flac", "label": "meow", "audio": "meow/c.flac", "video": None},
    ]


def test_a_lone_table_of_any_name_is_cut(tmp_path: Path) -> None:
    (tmp_path / "animals.csv").write_text("photo,kind\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(20)))
    tables = read_folder(tmp_path, WHOLE)
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert set(tables.names.values()) == {str(tmp_path / "animals.csv")}
    (tmp_path / "more.csv").write_text("photo\na.png\n")
    with pytest.raises(ConfigError, match=r"animals.csv, more.csv: which is for training\?"):
        read_folder(tmp_path, WHOLE)


def test_a_table_may_name_its_split_in_other_words(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    (tmp_path / "validation.csv").write_text("a\n2\n")
    assert list(read_folder(tmp_path, WHOLE).splits) == ["train", "val"]


def test_what_datasets_saved_is_read_with_files_undecoded_and_classes_by_name(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 6)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [str(tmp_path / f"{n}.png") for n in range(6)], "label": [0, 1, -1, 0, 1, None]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved, "validation": saved.select([1]), "extra": saved}).save_to_disk(
        tmp_path / "set"
    )
    tables = read_folder(tmp_path / "set", WHOLE)
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 6, "val": 1}
    assert tables.splits["train"]["label"][:] == ["cat", "dog", None, "cat", "dog", None]
    assert set(tables.splits["train"][0]["image"]) == {"bytes", "path"}
    saved.select([0] * 20).save_to_disk(tmp_path / "one")
    assert list(read_folder(tmp_path / "one", WHOLE).splits) == ["train", "val", "test"]


def test_a_saved_set_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ConfigError, match="cannot be read as a saved data set"):
        read_folder(tmp_path, WHOLE)


# ------------------------------------------------------------- links that lead out


def refused(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_folder(root, WHOLE)
    assert str(caught.value).endswith("\n    move it into the folder, or allow it with data.confine=false")
    assert read_folder(UnconfinedFolder(root), WHOLE).splits
    return str(caught.value).splitlines()[0]


@pytest.mark.parametrize("place", ["dog", "train/dog", "train"])
def test_a_class_folder_that_is_a_link_out_is_refused(place: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    classes(root, "train/cat", "val/cat") if "train" in place else classes(root, "cat")
    classes(tmp_path / "out", "dog", "dog/dog")
    (root / "train").rename(tmp_path / "was") if place == "train" else None
    (root / place).symlink_to(tmp_path / "out" / "dog")
    assert refused(root) == f"{root / place} leads to {tmp_path}/out/dog, which is outside of the data folder {root}"


def test_the_folder_itself_and_what_is_linked_inside_it_may_be_links(tmp_path: Path) -> None:
    classes(tmp_path / "real", "cat", "store/dog")
    (tmp_path / "real" / "dog").symlink_to("store/dog")
    (tmp_path / "root").symlink_to("real")
    tables = read_folder(tmp_path / "root", WHOLE)
    assert {row["label"] for table in tables.splits.values() for row in table} == {"cat", "dog", "store"}


def test_a_table_that_is_a_link_out_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.csv").write_text("the first line\nof a secret\n")
    (tmp_path / "root" / "train.csv").symlink_to("../secret.csv")
    said = refused(tmp_path / "root")
    assert said.startswith(f"{tmp_path}/root/train.csv leads to {tmp_path}/secret.csv") and "first line" not in said
    assert heads_of(UnconfinedFolder(tmp_path / "root"), WHOLE) is not None
    with pytest.raises(ConfigError, match="which is outside"):
        heads_of(tmp_path / "root", WHOLE)


def test_a_saved_set_whose_files_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_dict({"caption": [str(n) for n in range(10)]})
    saved.save_to_disk(tmp_path / "out")
    saved.save_to_disk(tmp_path / "root")
    state = tmp_path / "root" / "state.json"
    name = f"../out/{json.loads(state.read_text())['_data_files'][0]['filename']}"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": name}]}))
    assert "which is outside of the data folder" in refused(tmp_path / "root")
