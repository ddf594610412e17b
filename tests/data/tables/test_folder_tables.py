"""Which tables a run reads: the files of splits, a lone table for training, class folders next to a table."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.sources.files import existing_folder, read_folder, tables_of
from mmtrain.data.survey.survey import Limits, survey_of
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.data.tables.folder_tables import SplitFiles
from mmtrain.data.tables.splits import AllRows
from mmtrain.errors import ConfigError
from tests.data.parts import ALL, WHOLE, draw_pictures, write_rows
from tests.data.test_module import read

WANTED = {"image": None, "label": None}


def files_of_splits(root: Path) -> SplitFiles:
    """Three tables in three folders, each with its own pictures."""
    files = {}
    for number, split in enumerate(("train", "val", "test")):
        folder = root / "abc"[number]
        folder.mkdir(parents=True)
        rows = [
            {"image": name, "caption": "a cat", "label": "xy"[n % 2]} for n, name in enumerate(draw_pictures(folder, 6))
        ]
        files[split] = write_rows(folder / f"{split}-{number}.jsonl", rows)
    return SplitFiles(files, None)


def source_of(found: SplitFiles, root: Path | None = None, **changed: Any) -> Any:
    return existing_folder(root, **{**found.files, **changed})


def test_the_files_of_splits_can_be_anywhere(tmp_path: Path) -> None:
    result = files_of_splits(tmp_path / "data")
    tables = tables_of(source_of(result), WHOLE, restrict_paths=True)
    assert {split: len(table) for split, table in tables.splits.items()} == {"train": 6, "val": 6, "test": 6}
    assert tables.folder == tmp_path / "data" and tables.folder_of("val") == tmp_path / "data" / "b"
    head = heads_of(result, WHOLE)
    assert head is not None and head.folder_of("test") == tmp_path / "data" / "c"


def test_each_split_is_read_from_its_own_folder(tmp_path: Path) -> None:
    result = files_of_splits(tmp_path / "data")
    (tmp_path / "data" / "b" / "0.png").unlink()
    data = read(tmp_path, tmp_path / "run", source=lambda: source_of(result), restrict_paths=True)
    reader = data.inputs["image"]
    assert isinstance(reader, ImageInput)
    assert data.split("train").sample(0, seed=0, train=False).id == "0"
    with pytest.raises(Exception, match=r"0\.png"):
        data.split("val").sample(0, seed=0, train=False)
    assert data.row_facts()["train"] != data.row_facts()["val"]
    survey = survey_of(data, Limits(heavy=9, measured=9, decoded=9, files=9, file_bytes=10**6))
    assert survey.shared_files["image"][0].rows.keys() == {"train", "test"}


def test_data_root_is_what_paths_start_from(tmp_path: Path) -> None:
    result = files_of_splits(tmp_path / "data")
    tables = tables_of(source_of(result, tmp_path / "data" / "a"), WHOLE, restrict_paths=True)
    assert {tables.folder_of(split) for split in tables.splits} == {tmp_path / "data" / "a"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.csv", r"data\.val=.*gone\.csv: there is no such file\n    fix: data\.val=FILE"),
        ("b", r"data\.val=.*b: it is a folder\n    fix: name its table"),
        ("b/0.png", r"data\.val=.*0\.png: not one of \.jsonl"),
    ],
)
def test_a_file_that_cannot_be_a_split_is_refused(tmp_path: Path, file: str, message: str) -> None:
    result = files_of_splits(tmp_path)
    with pytest.raises(ConfigError, match=message):
        source_of(result, val=tmp_path / file)
    with pytest.raises(ConfigError, match=r"data.root: not set"):
        existing_folder(None)


def test_the_only_table_for_training_is_divided(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"caption": f"text {n}"} for n in range(40)])
    for place in (tmp_path, SplitFiles({"train": path}, None)):
        result = read_folder(place, WHOLE)
        assert {split: len(table) for split, table in result.splits.items()} == {"train": 32, "val": 4, "test": 4}
        assert "divides its rows: train 32, val 4, test 4" in result.notes[0]
        assert "'data.split.fractions={train:1,val:0,test:0}'" in result.notes[0]
    alone = read_folder(tmp_path, ALL)
    assert len(alone.splits["train"]) == 40 and not alone.notes
    predicted = read_folder(tmp_path, AllRows(column=None, fractions={"train": 1.0}, group=None))
    assert list(predicted.splits) == ["test"] and not predicted.notes


def test_a_folder_for_training_alone_is_divided(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "train" / label).mkdir(parents=True)
        draw_pictures(tmp_path / "train" / label, 10)
    assert {split: len(table) for split, table in read_folder(tmp_path, WHOLE).splits.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }


def test_too_few_rows_to_divide_are_all_for_training(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"caption": "text"}] * 3)
    assert list(read_folder(tmp_path, WHOLE).splits) == ["train"]


def class_folders(root: Path) -> Path:
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        draw_pictures(root / label, 6)
    return root


@pytest.mark.parametrize("read_it", [read_folder, heads_of])
def test_a_stray_table_next_to_class_folders_is_not_read(tmp_path: Path, read_it: Any) -> None:
    root = class_folders(tmp_path)
    (root / "results.csv").write_text("epoch,loss\n" + "1,0.5\n" * 20)
    result = read_it(root, ALL, WANTED)
    assert set(result.splits["train"]["label"]) == {"cat", "dog"}
    assert "the folders cat, dog are read, and results.csv is not" in result.notes[0]
    assert f"data.root={root / 'results.csv'}" in result.notes[0]


def test_a_table_of_the_files_in_folders_is_read(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    (root / "list.csv").write_text("picture,kind\n" + "".join(f"cat/{n}.png,k\n" for n in range(6)))
    result = read_folder(root, ALL, WANTED)
    assert result.splits["train"].column_names == ["picture", "kind"] and not result.notes


def test_a_table_with_all_that_is_wanted_is_read_and_the_folders_are_noted(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    rows = "".join(f"http://example.org/{n}.png,k\n" for n in range(6))
    (root / "list.csv").write_text(f"image,label\n{rows}")
    result = read_folder(root, ALL, WANTED)
    assert set(result.splits["train"]["label"]) == {"k"}
    assert "the folders next to it are not read as classes: cat, dog" in result.notes[0]


def test_folders_named_like_splits_are_no_classes(tmp_path: Path) -> None:
    for folder in ("train2017", "val2017"):
        (tmp_path / folder).mkdir()
        draw_pictures(tmp_path / folder, 3)
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"captions_{split}2017.json").write_text("[]")
    with pytest.raises(ConfigError, match="named like splits, not like classes") as caught:
        read_folder(tmp_path, WHOLE)
    parts = [f"data.{s}={tmp_path}/annotations/captions_{s}2017.json" for s in ("train", "val")]
    assert str(caught.value).endswith(f"fix: {' '.join(parts)} data.root={tmp_path}")


def test_files_of_one_name_are_found_in_the_folder_of_their_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        names = draw_pictures(tmp_path / f"{split}2017", 3)
        write_rows(tmp_path / f"{split}.jsonl", [{"image": name} for name in names])
    result = read_folder(tmp_path, WHOLE)
    assert {split: table["image"][0] for split, table in result.splits.items()} == {
        "train": "train2017/0.png",
        "val": "val2017/0.png",
    }


def test_a_column_that_begins_behind_the_first_rows_is_known(tmp_path: Path) -> None:
    rows = [{"image": "a.png"} | ({"label": "x", "price": 1} if n > 1500 else {}) for n in range(1600)]
    for name, text in (("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)), ("b.json", json.dumps(rows))):
        (tmp_path / name).write_text(text)
        head = heads_of(tmp_path / name, ALL, {"image": None, "label": None, "number": "price", "text": None})
        assert head is not None and {"label", "price"} <= set(head.splits["train"].column_names)
        assert "caption" not in head.splits["train"].column_names
