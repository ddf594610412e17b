"""Arrow reads the same of lines as Python, or leaves them to Python."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmtrain.data.tables import json_rows
from mmtrain.data.tables.arrow_lines import read_lines
from mmtrain.data.tables.row_tables import rows_table

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TYPES = {"t": pa.string(), "n": pa.int64(), "x": pa.float64(), "b": pa.bool_(), "m": TURNS, "l": pa.list_(pa.int64())}
CHAT = '{"m": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "null"}]}'

READ = [
    CHAT,
    '{"m": []}',
    '{"m": null, "t": null, "n": null}',
    '{"m": [{"content": "a", "role": "b"}]}',
    '{"t": "2024-01-01T00:00:00"}',
    '{"t": "1.50"}',
    '{"t": "null"}',
    '{"t": "é\\n\\u00e9\\u0000 \u2028 \\/"}',
    '{"t": ""}',
    '{"n": 9007199254740993}',
    '{"n": -9223372036854775808}',
    '{"x": 0.1}',
    '{"x": -1.7976931348623157e-308}',
    '{"x": 3}',
    '{"x": 123456789.12345678}',
    '{"b": true}',
    '{"l": [1, null, 3]}',
    "  {}  ",
    "",
]
LEFT = [
    '{"m": [{"role": "user"}]}',  # another object than one with a null
    '{"m": [{"role": "user", "content": null}]}',
    '{"m": [null]}',
    '{"m": ["a"]}',
    '{"m": "a"}',
    '{"m": [{"role": "user", "content": ["a"]}]}',
    '{"m": [{"role": "user", "content": "a", "name": "b"}]}',
    '{"new": 1}',
    '{"t": 7}',
    '{"t": true}',
    '{"t": ["a"]}',
    '{"t": "a", "t": "b"}',
    '{"m": [{"role": "a", "role": "b", "content": "c"}]}',
    '{"t": "\\ud83d"}',
    '{"t": "\\ud83d\\ude00"}',
    '{"n": 1.0}',
    '{"n": 1e3}',
    '{"n": 9223372036854775808}',
    '{"n": "1"}',
    '{"x": 9007199254740993}',
    '{"x": -0}',
    '{"x": 1e400}',
    '{"x": NaN}',
    '{"x": "1.5"}',
    '{"x": true}',
    '{"b": 1}',
    '{"l": [1, 2.5]}',
    '{"l": [[1]]}',
    '{"t": "a"}{"t": "b"}',
    '{"t": "a"} x',
    '{"t": "a"}\x0c',
    '["t"]',
    "1",
    '{"t": "a",}',
    '{"t": "a\tb"}',
    "{'t': 1}",
    '{"n": 01}',
    '{"l": ' + "[" * 200 + "]" * 200 + "}",
]


def of_python(text: str) -> list[dict[str, Any]]:
    return [{name: json.loads(text).get(name) for name in TYPES}]


@pytest.mark.parametrize("text", READ)
def test_what_arrow_reads_is_the_same(text: str) -> None:
    lines = [f"{line}\n".encode() for line in (CHAT, text, CHAT)]
    table = read_lines(lines, TYPES)
    assert table is not None and table.schema.types == list(TYPES.values())
    wanted = of_python(CHAT) + (of_python(text) if text else []) + of_python(CHAT)
    assert table.equals(pa.Table.from_pylist(wanted, pa.schema(list(TYPES.items()))))


@pytest.mark.parametrize("text", LEFT)
def test_what_may_differ_is_left_to_python(text: str) -> None:
    assert read_lines([f"{line}\n".encode() for line in (CHAT, text, CHAT)], TYPES) is None


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"l": [1\n', b", 2]}\n", b'{"n": 1}{"n": 2}\n'],
        [b'{"m": [{"role": "a", "content": "b"}\n', b"]}\n", b'{"n": 1}{"n": 2}\n'],
        [b'{"t": "\xff"}\n'],
        [b'{"t": "\xed\xa0\xbd"}\n'],
        [b'\xef\xbb\xbf{"t": "a"}\n'],
    ],
)
def test_lines_that_are_no_objects_are_left_to_python(lines: list[bytes]) -> None:
    assert read_lines(lines, TYPES) is None


@pytest.mark.parametrize("kind", [pa.json_(), pa.timestamp("us"), pa.list_(pa.json_()), pa.int32()])
def test_columns_of_other_types_are_left_to_python(kind: pa.DataType) -> None:
    assert read_lines([b"{}\n"], {"t": kind}) is None
    assert read_lines([b"{}\n"], {}) is None


@pytest.mark.parametrize("later", ['{"t": "null", "m": ["a"]}', '{"new": [1]}', '{"t": 7}', '{"n": 0.5}', None])
def test_a_file_of_pieces_is_read_as_its_lines_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str | None
) -> None:
    monkeypatch.setattr(json_rows, "_FIRST_PIECE", 300)
    monkeypatch.setattr(json_rows, "_PIECE", 500)
    texts = [json.dumps({"t": f"row {n}", "n": n, "m": json.loads(CHAT)["m"]}) for n in range(30)]
    texts[20:20] = [] if later is None else [later]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode())
    table, notes = rows_table(path)
    rows = [json.loads(text) for text in texts]
    names = list(dict.fromkeys(name for row in rows for name in row))
    assert list(table) == [{name: row.get(name) for name in names} for row in rows] and not notes


def test_the_number_of_a_line_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_FIRST_PIECE", 10)
    monkeypatch.setattr(json_rows, "_PIECE", 20)
    path = tmp_path / "train.jsonl"
    path.write_text('{"a": 1}\n' * 11 + "x\n")
    with pytest.raises(ValueError, match="line 12 is not JSON"):
        rows_table(path)
