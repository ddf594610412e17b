"""Class folders, a lone table and what `datasets` saved: every usual place gives tables."""

import json
from pathlib import Path

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter

from mmtrain.data.decoding.image_file import FORMATS
from mmtrain.data.sources.files import read_folder
from mmtrain.data.sources.hub import hub_tables
from mmtrain.data.tables.class_folders import KIND_OF, PICTURES, read_class_folders
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.data.tables.paths import UnconfinedFolder
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
    result = read_class_folders(tmp_path, lambda columns: datasets.Dataset.from_dict(dict(columns)))
    assert result is not None
    tables, notes = result
    assert notes == [f"{tmp_path}: files in folders of classes are not read for their endings: 1 .txt"]
    assert list(tables[None]) == [
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
    assert str(caught.value).endswith("\n    move it into the folder, or allow it with data.restrict_paths=false")
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
    message = refused(tmp_path / "root")
    assert (
        message.startswith(f"{tmp_path}/root/train.csv leads to {tmp_path}/secret.csv") and "first line" not in message
    )
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


# ------------------------------------------------------------- what else lies in folders


def read(root: Path) -> tuple[dict[str, list[dict[str, str]]], list[str]]:
    """By split, its rows; and the notes. The first rows are read alike."""
    result, head = read_folder(root, WHOLE), heads_of(root, WHOLE)
    assert head is not None and head.notes == result.notes and list(head.splits) == list(result.splits)
    assert {s: head.splits[s].column_names for s in head.splits} == {
        s: result.splits[s].column_names for s in head.splits
    }
    return {split: list(table) for split, table in result.splits.items()}, list(result.notes)


SPLIT_CLASSES = ("train/cat", "train/dog", "val/cat")


def test_folders_next_to_splits_are_no_classes(tmp_path: Path) -> None:
    classes(tmp_path, *SPLIT_CLASSES, "models", "samples/deep", count=2)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    tables, notes = read(tmp_path)
    assert {s: sorted({row["label"] for row in rows}) for s, rows in tables.items()} == {
        "train": ["cat", "dog"],
        "val": ["cat"],
    }
    assert notes == [f"{tmp_path}: annotations, models, samples is not read: the splits are train, val and test"]


def test_train_can_be_a_class(tmp_path: Path) -> None:
    classes(tmp_path, "train", "car", "boat", count=8)
    tables, notes = read(tmp_path)
    assert {row["label"] for rows in tables.values() for row in rows} == {"train", "car", "boat"}
    assert [note for note in notes if "divides its rows" not in note] == []


@pytest.mark.parametrize("inside", [SPLIT_CLASSES, ("train", "val")])
def test_two_folders_of_one_split_are_refused(tmp_path: Path, inside: tuple[str, ...]) -> None:
    classes(tmp_path, *inside, "validation/cat", count=2)
    for name in ("train", "val") if len(inside) == 2 else ():
        (tmp_path / name / "metadata.csv").write_text("file_name\n0.png\n")
    for reader in (read_folder, heads_of):
        with pytest.raises(ConfigError, match="has the folders val and validation: which is the val split"):
            reader(tmp_path, WHOLE)


def test_a_split_without_classes_is_named(tmp_path: Path) -> None:
    classes(tmp_path, *SPLIT_CLASSES, "test", count=2)
    with pytest.raises(ConfigError) as caught:
        read_folder(tmp_path, WHOLE)
    assert str(caught.value) == (
        f"{tmp_path}/test has no folder a class, as the other splits of {tmp_path} have; it holds 0.png, 1.png\n"
        f"    put its files into folders {tmp_path}/test/CLASS, or move it out of {tmp_path}"
    )


def test_hidden_files_are_no_samples_and_other_endings_are_counted(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "cat/.ipynb_checkpoints", "__MACOSX/cat", "dog", count=6)
    for name in ("cat/._0.png", "cat/.DS_Store", "cat/a.heic", "cat/b.HEIC", "dog/Thumbs.db", "dog/LICENSE"):
        (tmp_path / name).write_bytes(b"")
    for name in ("cat/a.JFIF", "cat/a.jpe", "dog/a.avif", "dog/a.jp2", "dog/a.pgm"):
        (tmp_path / name).write_bytes(b"")
    tables, notes = read(tmp_path)
    rows = [row for result in tables.values() for row in result]
    assert len(rows) == 17 and {row["label"] for row in rows} == {"cat", "dog"}
    assert notes[0] == (
        f"{tmp_path}: files in folders of classes are not read for their endings: 2 .heic, 1 .db, 1 without"
    )


def test_every_ending_of_a_format_that_is_opened_is_read() -> None:
    from PIL import Image

    Image.init()
    known = {ending for ending, name in Image.registered_extensions().items() if name in {*FORMATS, "MPO"}}
    assert known <= set(KIND_OF)
    assert set(PICTURES) == set(FORMATS)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_in_folders_of_splits(tmp_path: Path, kind: str) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split / "deep").mkdir(parents=True)
        rows = [{"file_name": name, "text": f"{split} {name}"} for name in ("a.png", "deep/b.png")]
        lines = ["file_name,text", *(",".join(row.values()) for row in rows)]
        lines = [json.dumps(row) for row in rows] if kind == "jsonl" else lines
        (tmp_path / split / f"metadata.{kind}").write_text("\n".join(lines))
    tables, notes = read(tmp_path)
    assert list(tables) == ["train", "val", "test"] and notes == []
    assert tables["val"] == [
        {"image": "val/a.png", "text": "val a.png"},
        {"image": "val/deep/b.png", "text": "val deep/b.png"},
    ]


@pytest.mark.parametrize("name", ["data[1]", "what?", "all*", "[", "a]b[!c]"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet", "arrow"])
def test_marks_of_patterns_in_the_name_of_a_folder_are_letters(tmp_path: Path, name: str, kind: str) -> None:
    for folder in (name, "data1", "what1", "all1", "abd"):
        (tmp_path / folder).mkdir()
        table = datasets.Dataset.from_dict({"caption": [folder] * 20})
        path = tmp_path / folder / f"train.{kind}"
        if kind == "arrow":
            with ArrowWriter(path=str(path)) as writer:
                writer.write_table(table.data.table)
        else:
            {"csv": table.to_csv, "parquet": table.to_parquet}.get(kind, table.to_json)(
                str(path), **({"lines": False} if kind == "json" else {})
            )
    rows = [row for result in read(tmp_path / name)[0].values() for row in result]
    assert rows == [{"caption": name}] * 20
    if kind in ("csv", "jsonl", "parquet"):
        result = hub_tables(name=str(tmp_path / name), config=None, revision=None, split=WHOLE)
        assert {row["caption"] for table in result.splits.values() for row in table} == {name}
