"""Tables of text give what the file says: the same rows as .jsonl and as .json, however late a column changes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.tables import arrow_rows
from mmtrain.data.tables.arrow_digest import OfDatasets
from mmtrain.data.tables.row_digest import digest_rows
from mmtrain.data.tables.row_tables import rows_table
from mmtrain.data.tables.tables import cells_of, rows_at

WORDS = [
    "null",
    "true",
    "1.50",
    "007",
    '"Quoted"',
    "[1]",
    "{}",
    "",
    " ",
    "NA",
    "nan",
    "2024-01-31",
    "2024-01-31T10:00:00Z",
]
# by name, the cells of a column; null is added to each
COLUMNS: dict[str, list[Any]] = {
    "words": WORDS,
    "words and lists": ["null", ["a", "b"], "true", [], '["a"]'],
    "words and numbers": [7, "007", "7", 1.5, "null", -0.0, True],
    "words and objects": ["red", {"name": "red"}],
    "numbers": [1, 2.5, -3],
    "booleans": [True, False],
    "booleans and numbers": [0.5, True, 2, False],
    "large": [2**80, 1, -(2**63)],
    "exact": [2**60 + 1, 0.1, 12345.678901234567],
    "lists": [[1, 2], [], [3]],
    "mixed lists": [[1, "1", None, [2]], ["a"]],
    "lists of objects": [[{"a": 1}, {"a": 2}], []],
    "keys that change": [{"a": 1}, {"b": 2}, {}],
    "inner keys that change": [[{"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}]],
    "inner types that change": [{"a": 1}, {"a": "1"}],
    "objects": [{"b": 1, "a": [0.5]}, {"a": [1.5], "b": 2}],
    "lines": ["a\u2028b", "a\x85b", "a\x0bb\x0cc", "a\rb", "a\nb", "\U0001f600"],
    "nothing": [],
}


def both(folder: Path, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows as they come back from .jsonl and .json."""
    (folder / "a.jsonl").write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    (folder / "b.json").write_text(json.dumps(rows))
    (folder / "c.json").write_text(json.dumps({"data": rows}))
    return [list(rows_table(folder / name)[0]) for name in ("a.jsonl", "b.json", "c.json")]


def exactly(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows, sort_keys=True)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("first", [0, 3])
def test_a_cell_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, first: int) -> None:
    monkeypatch.setattr(arrow_rows, "_MOST_ROWS", 2)  # types change in later batches
    cells = [None] * first + COLUMNS[name] + [None]
    rows = [{"id": number, "cell": cell} for number, cell in enumerate(cells)]
    wanted = [{**row, "cell": float(row["cell"]) if name == "numbers" and row["cell"] else row["cell"]} for row in rows]
    for result in both(tmp_path, rows):
        assert exactly(result) == exactly(wanted)


def test_a_column_may_begin_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_rows, "_MOST_BYTES", 100)
    rows: list[dict[str, Any]] = [{"caption": f"a red box number {n}"} for n in range(40)]
    rows += [{"caption": "b", "late": [1]}, {"late": ["1"], "caption": ["c", "null"]}]
    for result in both(tmp_path, rows):
        assert result == [{"late": None, "caption": None, **row} for row in rows]


@pytest.mark.parametrize(
    "keys",
    [
        ("id", "source", "model", "system_prompt", "messages"),
        ("type", "payload"),
        ("type", "message"),
        ("id", "type", "version", "cwd"),
    ],
)
def test_columns_as_of_an_agent_are_columns(tmp_path: Path, keys: tuple[str, ...]) -> None:
    rows = [{key: f"{key} {n}" for key in keys} for n in range(3)]
    rows += [{key: {"a": 1} if key in ("payload", "message") else [{"b": 2}] for key in keys}]
    for result in both(tmp_path, rows):
        assert result == rows


def test_rows_of_mixed_columns_can_be_read_as_any_others(tmp_path: Path) -> None:
    cells = ["null", ["a", 1], 7, None] * 10
    both(tmp_path, [{"id": n, "cell": cell} for n, cell in enumerate(cells)])
    table, notes = rows_table(tmp_path / "a.jsonl")
    assert notes == [] and list(cells_of(table, "cell")) == cells
    some = table.select(range(39, 0, -3))
    assert [row["cell"] for row in rows_at(some, range(len(some)))] == cells[39:0:-3]
    assert list(cells_of(table.add_column("new", cells_of(table, "id")), "cell")) == cells
    assert isinstance(table, OfDatasets)
    digests = [
        digest_rows(rows_table(tmp_path / n)[0], ["cell"], media=[], folder=tmp_path) for n in ("a.jsonl", "b.json")
    ]
    assert digests[0] == digests[1]


def test_a_table_is_converted_once_and_anew_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("caption ;n\na;1,5\n")
    table, notes = rows_table(path)
    assert list(table) == [{"caption": "a", "n": "1.5"}] and len(notes) == 3
    with monkeypatch.context() as patch:
        patch.setattr(arrow_rows, "write_rows", None)
        again, kept = rows_table(path)
    assert (list(again), kept, again._fingerprint) == (list(table), notes, table._fingerprint)
    path.write_text("caption;n\nb;1\n")
    assert list(rows_table(path)[0]) == [{"caption": "b", "n": "1"}]
