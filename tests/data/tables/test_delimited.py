"""Tables with separators: every cell as it is written, and one note or error for what is not plain csv."""

from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables.delimited import Delimited
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.errors import ConfigError
from tests.data.parts import WHOLE


def read(folder: Path, name: str, text: str | bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a training table and the notes, which are the same for its head."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    result, head = read_folder(folder, WHOLE), heads_of(folder, WHOLE)
    assert head is not None
    rows = [row for table in result.splits.values() for row in table]
    assert [{name: row.get(name) for name in rows[0]} for table in head.splits.values() for row in table] == rows
    assert head.notes == result.notes
    return rows, list(result.notes)


def refused(folder: Path, name: str, text: str | bytes) -> str:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    messages = []
    for reader in (read_folder, heads_of):
        with pytest.raises(ConfigError) as caught:
            reader(folder, WHOLE)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


def rows_of(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"a": a, "b": b} for a, b in rows]


AB = [{"a": "1", "b": "2"}, {"a": "3", "b": None}]
# name, text, rows, what the only note says (none: no note)
READ: list[tuple[str, str, list[dict[str, Any]], str | None]] = [
    ("train.csv", "a,b\n1,2\n3,\n", AB, None),
    ("train.csv", "a;b\n1;2\n3;\n", AB, "separated by semicolons"),
    ("train.csv", "a\tb\n1\t2\n3\t\n", AB, "separated by tabs"),
    ("train.csv", "a|b\n1|2\n3|\n", AB, "separated by bars"),
    ("train.tsv", "a,b\n1,2\n3,\n", AB, "separated by commas"),
    ("train.csv", "sep=;\r\na;b\r\n1;2\r\n3;\r\n", AB, None),
    ("train.csv", "sep=,\na,b\n1,2\n3,\n", AB, None),
    ("train.csv", '"sep=\t"\na\tb\n1\t2\n3\t\n', AB, None),
    ("train.csv", "# made by hand\n# in 2024, in May, at home\na,b\n1,2\n3,\n", AB, "begin with # are not read"),
    ("train.csv", "\n# made by hand\n\na,b\n1,2\n3,\n", AB, "begin with # are not read"),
    ("train.csv", "#a,b\n1,2\n3,\n", [{"#a": "1", "b": "2"}, {"#a": "3", "b": None}], None),
    ("train.csv", "a,b\n#1,2\n", [{"a": "#1", "b": "2"}], None),
    ("train.csv", " a , b\n1,2\n3,\n", AB, "spaces around column names do not count: ' a ', ' b'"),
    ("train.csv", "a,b\n1,2\n3\n", AB, "1 rows have fewer cells than there are columns, the first in line 3"),
    ("train.csv", "a,b,\n1,2,\n3,,\n", [{**row, "Unnamed: 2": None} for row in AB], None),
    ("train.csv", "a,b\n1,2,,\n3,,\n", AB, None),
    ("train.csv", "caption\na; b; c\nd, e\n".replace(", ", "; "), [{"caption": "a; b; c"}, {"caption": "d; e"}], None),
    ("train.csv", 'a,b\n"1, 2","say ""hi""\nthere"\n', [{"a": "1, 2", "b": 'say "hi"\nthere'}], None),
    ("train.csv", 'a,b\n5" pipe,2\n', [{"a": '5" pipe', "b": "2"}], None),
    ("train.csv", "a,b\n1,x\u2028y\x85z\x0b\x0c\n", [{"a": "1", "b": "x\u2028y\x85z\x0b\x0c"}], None),
    ("train.csv", "\ufeffa;b\nNA;null\n", [{"a": "NA", "b": "null"}], "separated by semicolons"),
    ("train.csv", 'a, b\n1, "x, y"\n 2, "z"\n', rows_of(("1", "x, y"), ("2", "z")), "spaces between a separator"),
    ("train.csv", 'a,b\n1,"say, ""hi"""\n 2,x\n', rows_of(("1", 'say, "hi"'), (" 2", "x")), None),
    ("train.csv", 'a,b\n1, "x" is\n', rows_of(("1", ' "x" is')), None),
    ("train.csv", "a,b\n1,2\n,,\n3,\n ,\n", AB, "2 rows have no value in any cell"),
    # lone quotes
    ("train.tsv", 'a\tb\n"x y\t1\nz\t2\n"q\t3\n', rows_of(('"x y', "1"), ("z", "2"), ('"q', "3")), "written: line 2"),
    ("train.csv", 'a,b\n1,"x\n2,y\n', rows_of(("1", '"x'), ("2", "y")), "read as they are written: line 2"),
    ("train.csv", 'a,b\n"red" box,1\nz,2\n', rows_of(('"red" box', "1"), ("z", "2")), "read as they are written"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "rows", "note"), READ)
def test_what_is_read(tmp_path: Path, name: str, text: str, rows: list[dict[str, Any]], note: str | None) -> None:
    result, notes = read(tmp_path, name, text)
    assert result == rows
    assert len(notes) == (note is not None) and (note is None or note in notes[0]), notes


@pytest.mark.parametrize(
    ("column", "read_as"),
    [
        (["12,5", "3", "1.297,25", "-0,5", None], ["12.5", "3", "1297.25", "-0.5", None]),
        (["12,5", "3.5"], ["12,5", "3.5"]),
        (["1.297", "2.5"], ["1.297", "2.5"]),
        (["12,5", "n/a"], ["12,5", "n/a"]),
        (["1,2,3", "4"], ["1,2,3", "4"]),
    ],
)
def test_decimal_commas_between_semicolons(tmp_path: Path, column: list[str | None], read_as: list[str | None]) -> None:
    text = "id;n\n" + "".join(f"r{row};{cell or ''}\n" for row, cell in enumerate(column))
    rows, notes = read(tmp_path, "train.csv", text)
    assert [row["n"] for row in rows] == read_as
    assert any("commas in n are read as decimal commas" in note for note in notes) == (column != read_as)


@pytest.mark.parametrize(
    ("text", "cells", "note"),
    [
        ("id;n;m\na;1,5;1.200\nb;2;999\n", ["1200", "999"], "points in m are read as thousands: 1.297 is 1297"),
        ("id;n;m\na;x;1.200\nb;y;999\n", ["1.200", "999"], "points in m are read as decimal points"),
        ("id;n;m\na;1,5;0.200\nb;2;999\n", ["0.200", "999"], None),
        ("id;n;m\na;x;1.20\nb;y;999\n", ["1.20", "999"], None),
    ],
)
def test_points_between_semicolons(tmp_path: Path, text: str, cells: list[str], note: str | None) -> None:
    rows, notes = read(tmp_path, "train.csv", text)
    assert [row["m"] for row in rows] == cells
    assert [result for result in notes if "points in" in result] == ([] if note is None else [notes[-1]])
    assert note is None or note in notes[-1]


def test_a_quoted_cell_that_holds_rows_is_reported(tmp_path: Path) -> None:
    rows, notes = read(tmp_path, "train.csv", 'a,b\n1,"x\n2,y"\n3,"p,q"\n')
    assert len(rows) == 2 and notes == [
        f"{tmp_path}/train.csv: 1 quoted cells contain complete rows, the first from line 2 on"
    ]


# name, text, what the message says
REFUSED: list[tuple[str, str | bytes, list[str]]] = [
    ("train.csv", 'a,b\n1,"x\n2,"y, z"\n', ["line 2 begins a quoted cell that is not closed", "as .jsonl"]),
    ("train.tsv", 'a\tb\n1\t"x\n2\ty"\n3\tz\n', ["line 2 has a quoted cell that holds other rows"]),
    ("train.csv", 'a,b\n1,"x" y\n2,"z, w"\n', ["line 2 begins a quoted cell"]),
    ("train.csv", "a,a\n1,2\n", ["two of its columns are called a"]),
    ("train.csv", "a, a\n1,2\n", ["two of its columns are called a"]),
    ("train.csv", "sep=;\na;b\n1;2;3\n", ["line 3 has 3 fields under 2 column names", "quote what holds a semicolon"]),
    ("train.csv", "a,b\n1,2\n".encode("utf-16"), ["it is UTF-16", "iconv -f UTF-16 -t UTF-8", "mv "]),
    ("train.csv", "a,b\n1,2\n".encode("utf-16-le"), ["it is UTF-16"]),
    ("train.jsonl", '{"a": 1}\n'.encode("utf-16"), ["it is UTF-16"]),
    ("train.json", '[{"a": 1}]\n'.encode("utf-16-be"), ["it is UTF-16"]),
    ("train.csv", "a,b\n1,2\n3,\0\n", ["line 3 holds a NUL character", "tr -d '\\000'"]),
    ("train.csv", '{"a": "b", "c": 1}\n{"a": "d", "c": 2}\n', ["it holds JSON objects", "train.csv' ", "train.jsonl'"]),
    ("train.json", '{"a": 1}\n{"a": 2}\n', ["it holds several objects", "train.json' '", "train.jsonl'"]),
    ("train.json", '{\n"a": 1}\n{"a": 2}\n', ["it holds several objects", "write an object a line"]),
    ("train.jsonl", '{\n "a": 1\n}\n', ["line 1 is not JSON", "write an object a line"]),
    ("train.jsonl", '{"a": 1}{"a": 2}\n', ["line 1 is not JSON", "write an object a line"]),
    ("train.json", '{"a": {"0": 1}, "b": {"1": 2}}', ["no list of rows", 'to_json(path, orient="records")']),
    ("train.json", '{"columns": ["a"], "index": [0, 1], "data": [[1, 1], [2]]}', ['to_json(path, orient="records")']),
    ("train.csv", "a,b\n1,é\n".encode("cp1252"), ["line 2 is not UTF-8: byte 0xe9 at 3", "iconv -f CP1252 -t UTF-8"]),
    ("train.jsonl", '{"a": 1}\n{"a": "é"}\n'.encode("cp1252"), ["line 2 is not UTF-8: byte 0xe9 at 8"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "parts"), REFUSED)
def test_what_is_refused(tmp_path: Path, name: str, text: str | bytes, parts: list[str]) -> None:
    message = refused(tmp_path, name, text)
    assert [part for part in parts if part not in message] == [], message
    assert len(message.splitlines()) == 2


def test_a_jsonl_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    rows, notes = read(tmp_path, "train.jsonl", '\ufeff{"a": "1"}\n\n{"a": null}\n')
    assert rows == [{"a": "1"}, {"a": None}] and notes == []


def test_a_large_table_is_not_read_to_see_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a;b\n1;"x"\n' + '2;"y\n')
    rows = Delimited(path, ",", is_examined=False).rows()
    assert next(rows)[0] == {"a": "1", "b": "x"}
