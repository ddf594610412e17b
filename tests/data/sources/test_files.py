"""Tables of a folder: every format gives the same rows, and a fault of one is reported with its fix."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtrain.data.sources.files import existing_folder, read_folder
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.data.tables.folder_layout import ENDINGS
from mmtrain.errors import ConfigError
from tests.data.parts import WHOLE

ROWS: list[dict[str, str | None]] = [
    {"id": "007", "image": "a.png", "caption": "a cat, and a dog", "label": "3"},
    {"id": "008", "image": None, "caption": "NA", "label": "10"},
    {"id": "009", "image": "c.png", "caption": 'a "quoted" name', "label": None},
    {"id": "010", "image": "d.png", "caption": "ein Bär\nund noch einer", "label": "null"},
    {"id": "011", "image": "e.png", "caption": None, "label": "True"},
]


def read_tables(folder: Path) -> Mapping[str, Any]:
    return read_folder(folder, WHOLE).splits


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    for split, rows in (("train", ROWS), ("val", ROWS[:2]), ("test", ROWS[2:])):
        write(tmp_path / f"{split}.{ending}", rows)
    tables = read_tables(tmp_path)
    assert list(tables) == ["train", "val", "test"]
    assert list(tables["train"]) == ROWS
    assert list(tables["val"]) == ROWS[:2] and list(tables["test"]) == ROWS[2:]


def test_splits_may_have_different_formats_and_only_some_need_be_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "test.parquet", ROWS)
    (tmp_path / "notes.txt").write_text("not a table")
    assert {name: len(table) for name, table in read_tables(tmp_path).items()} == {"train": 5, "test": 5}


def test_a_table_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    assert len(read_tables(tmp_path)["train"]) == 5
    write(tmp_path / "train.jsonl", ROWS[:3])
    assert len(read_tables(tmp_path)["train"]) == 3


def test_a_csv_of_a_spreadsheet_or_of_pandas_is_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("\ufeffcaption,label\r\na cat,1\r\n\r\na dog,\r\n", encoding="utf-8")
    assert list(read_tables(tmp_path)["train"]) == [
        {"caption": "a cat", "label": "1"},
        {"caption": "a dog", "label": None},
    ]
    (tmp_path / "train.csv").write_text(",caption\n0,a cat\n1,a dog\n")
    assert [row["caption"] for row in read_tables(tmp_path)["train"]] == ["a cat", "a dog"]


def test_captions_may_be_one_or_several_in_one_column(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"caption": ["a", "b"]}\n{"caption": "c"}\n{"caption": null}\n')
    assert [row["caption"] for row in read_tables(tmp_path)["train"]] == [["a", "b"], "c", None]


def refused(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_tables(folder)
    return str(caught.value)


# name of the file, its content, parts of the message
BROKEN: list[tuple[str, bytes, list[str]]] = [
    ("train.jsonl", b"", ["has no rows", "train split", "remove the file"]),
    ("train.parquet", b"", ["has no rows"]),
    ("val.csv", b"id,caption\n", ["has no rows", "val split"]),
    ("test.jsonl", b"\n\n", ["has no rows", "test split"]),
    ("train.csv", b"\n", ["has no rows"]),
    ("train.jsonl", b'{"id": 1}\n\n{"id": 2', ["as jsonl", "line 3 is not JSON", "correct the table"]),
    ("train.jsonl", b'{"id": 1}\nhello\n', ["line 2 is not JSON", "character 1"]),
    ("train.jsonl", '{"id": "é"}\n'.encode("latin-1"), ["as jsonl", "save it as UTF-8"]),
    ("train.csv", "id,caption\n1,é\n".encode("latin-1"), ["as csv", "save it as UTF-8"]),
    ("train.csv", b"id,caption\n1,a cat, a dog\n", ["3 fields under 2 column names", "quote what holds a comma"]),
    (
        "train.csv",
        b"id,caption\n1,a cat\n2,a cat, a dog\n",
        ["line 3 has 3 fields under 2 column names", "quote what holds a comma"],
    ),
    ("train.json", b"", ["has no rows"]),
    ("train.json", b"[]", ["has no rows"]),
    ("train.json", b'[{"id": 1},\n {"id": 2]', ["as json", "line 2 is not JSON"]),
    ("train.json", b'["a.png", "b.png"]', ["it holds no objects, but a list of str", "write an object a row"]),
    (
        "train.json",
        b'{"info": {}, "images": [{"id": 1}], "annotations": [{"id": 1}, {"id": 2}]}',
        ["one object with the keys info, images, annotations", "['annotations']]\" > ", "train.jsonl && mv "],
    ),
    ("train.xlsx", b"PK", ["ends in .xlsx is not read", "save it as ", "train.csv, in the program that made it"]),
    ("train.csv.gz", b"", ["ends in .csv.gz is not read", "gunzip "]),
    ("val.ndjson", b"", ["mv ", "val.jsonl"]),
    ("labels.xlsx", b"PK", ["save it as ", "labels.csv"]),
    ("train.parquet", b"PAR1 and no more", ["as parquet"]),
    ("train.arrow", b"not arrow at all", ["as arrow"]),
]


@pytest.mark.parametrize(("name", "content", "text"), BROKEN)
def test_a_broken_table_is_named_with_its_fault(
    tmp_path: Path, name: str, content: bytes, text: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path)
    assert message.startswith(str(tmp_path / name))
    assert [part for part in text if part not in message] == []
    assert len(message.splitlines()) == 2, message
    assert caplog.text == "", "one fault, reported once"


def test_two_tables_of_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "train.csv", ROWS)
    message = refused(tmp_path)
    assert "train.csv and train.jsonl" in message and "which is the train split" in message and "keep one" in message


def test_a_json_of_columns_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}))
    assert list(read_tables(tmp_path)["train"]) == ROWS


def test_endings_are_read_in_any_letters(tmp_path: Path) -> None:
    (tmp_path / "Train.CSV").write_text("caption\na cat\n")
    assert list(read_tables(tmp_path)["train"]) == [{"caption": "a cat"}]


def test_tables_that_say_in_their_names_what_they_are_for_are_to_be_renamed(tmp_path: Path) -> None:
    for name in ("train_data.csv", "flowers-test.csv"):
        write(tmp_path / name, ROWS)
    assert refused(tmp_path) == (
        f"{tmp_path} has the tables flowers-test.csv, train_data.csv: which is for training?\n"
        f"    mv {tmp_path}/flowers-test.csv {tmp_path}/test.csv && mv {tmp_path}/train_data.csv {tmp_path}/train.csv"
    )
    (tmp_path / "train_data.csv").rename(tmp_path / "mine.csv")
    assert refused(tmp_path).endswith(
        "name them train, val and test, or keep one, which is then cut as data.split says"
    )


def test_tables_that_are_not_read_are_said(tmp_path: Path) -> None:
    for name in ("train.csv", "val_data.csv"):
        write(tmp_path / name, ROWS)
    result = read_folder(tmp_path, WHOLE)
    assert list(result.splits) == ["train"]
    assert result.notes == [f"{tmp_path}: val_data.csv is not read: the splits are train, val and test"]


def test_a_folder_without_a_table_says_what_it_holds_and_what_to_write(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert "no train, val or test table" in message and "it holds nothing" in message
    (tmp_path / "notes.json").write_text("[]")
    message = refused(tmp_path)
    assert "notes.json" in message and ".jsonl, .csv, .tsv, .json, .parquet, .arrow" in message
    (tmp_path / "b.jpg").touch()
    assert refused(tmp_path) == (
        f"{tmp_path} has no train, val or test table, and no folder a class; it holds b.jpg, notes.json\n"
        f"    write {tmp_path}/train.jsonl with a line for each file, such as"
        ' {"image": "b.jpg", "caption": "what it shows", "label": "its class"}\n'
        f"    or move the files of each class into a folder of its own: {tmp_path}/CLASS/b.jpg"
    )
    write(tmp_path / "inner.csv", ROWS)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner.csv").rename(tmp_path / "inner" / "metadata.csv")
    assert refused(tmp_path).endswith(f"    set data.root={tmp_path}/inner, which holds tables")


def test_the_folder_must_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data.root = .*nothere does not exist\n    set data.root to the folder"):
        existing_folder(tmp_path / "nothere")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file, not a folder"):
        existing_folder(tmp_path / "file")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert existing_folder("~") == tmp_path == existing_folder(str(tmp_path))


DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.jsonl", '{"caption": "a"}\n{"caption": %s}\n' % DEEP, "line 2 is no row: nested more than 100 deep"),  # noqa: UP031
        ("train.json", '[{"caption": %s}]' % DEEP, "nested more than 100 deep"),  # noqa: UP031
        (
            "train.jsonl",
            '{"caption": "a"}\n{"caption": "half \\ud83d"}\n',
            "line 2: the column caption holds half of a surrogate",
        ),
        ("train.json", '[{"caption": "half \\ud83d"}]', "row 1: the column caption holds half of a surrogate pair"),
    ],
)
def test_a_row_that_ends_the_reader_is_told_of(tmp_path: Path, name: str, text: str, message: str) -> None:
    """Arrow's reader of JSON ends the process at deep nesting."""
    (tmp_path / name).write_text(text)
    for read in (read_folder, heads_of):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path, WHOLE)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_cell_that_is_not_utf_8_is_a_gap_in_the_head(tmp_path: Path, kind: str) -> None:
    texts = pa.array([b"a cat", b"\xff\xfe", b"a dog"], pa.binary())
    table = pa.table({"caption": pa.Array.from_buffers(pa.string(), 3, texts.buffers()), "n": [1, 2, 3]})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "train.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "train.arrow", table.schema) as stream:
            stream.write_table(table)
    head = heads_of(tmp_path, WHOLE)
    assert head is not None
    rows = [{"caption": c, "n": n} for c, n in (("a cat", 1), (None, 2), ("a dog", 3))]
    assert [dict(row) for split in head.splits.values() for row in split] == rows
