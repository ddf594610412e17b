"""Reading tables: many rows or cells at once give what one after the other would, and never fill the memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Json, List, Value

from mmtrain.data.tables.tables import cells_of, readable_cell, row_at, rows_at, undecoded
from mmtrain.errors import SampleError

CELLS = {
    "id": [f"r{n}" for n in range(50)],
    "captions": [None if n % 7 == 0 else [f"cat {n}", None][: n % 3] for n in range(50)],
    "number": [None if n % 5 == 0 else n / 4 for n in range(50)],
    "file": [{"bytes": b"x" * n, "path": None} for n in range(50)],
}


class OneByOne:
    """A table that cannot read several rows at once."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.column_names = table.column_names

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | str) -> Any:
        return self.table[key] if isinstance(key, int) else (self.table[row][key] for row in range(len(self)))


class Counted(OneByOne):
    """Counts the rows of each request."""

    def __init__(self, table: Dataset) -> None:
        super().__init__(table)
        self.data = table.data
        self.asked: list[int] = []

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        self.asked.append(len(rows))
        return [self.table[row] for row in rows]

    def select_columns(self, column_names: list[str]) -> "Counted":
        assert column_names == self.table.column_names
        return self

    def iter(self, batch_size: int) -> Iterator[dict[str, list[Any]]]:
        self.asked.append(batch_size)
        return self.table.iter(batch_size)


def tables() -> list[Any]:
    full = Dataset.from_dict(CELLS)
    return [full, full.select(range(49, 0, -2)), OneByOne(full)]


@pytest.mark.parametrize("nth", range(3))
def test_the_cells_of_a_column_are_those_of_its_rows(nth: int) -> None:
    table = tables()[nth]
    for column in CELLS:
        assert list(cells_of(table, column)) == [table[row][column] for row in range(len(table))]
    several = [[cells["number"], cells["id"]] for cells in (table[row] for row in range(len(table)))]
    assert list(cells_of(table, ["number", "id"])) == several


@pytest.mark.parametrize("nth", range(3))
def test_rows_come_in_the_order_in_which_they_are_asked_for(nth: int) -> None:
    table = tables()[nth]
    for rows in ([], [3], [20, 3, 3, 0], range(len(table))):
        assert list(rows_at(table, rows)) == [table[row] for row in rows]


def test_large_cells_are_read_a_few_at_a_time() -> None:
    small, large = Counted(Dataset.from_dict({"a": ["x"] * 99})), Counted(Dataset.from_dict({"a": ["x" * 10**7] * 3}))
    assert len(list(cells_of(small, "a"))) == 99 and small.asked == [1000]
    assert len(list(cells_of(large, "a"))) == 3 and large.asked == [1]
    assert len(list(rows_at(small, range(40)))) == 40 and small.asked[1:] == [16, 16, 8]


def no_utf8(rows: int, bad: int) -> Dataset:
    """A table with one text that is not UTF-8, as a Parquet file can have it."""
    texts = [b"\xff\xfe" if row == bad else b"cat %d" % row for row in range(rows)]
    column = pa.Array.from_buffers(pa.string(), rows, pa.array(texts, pa.binary()).buffers())
    return Dataset(pa.table({"caption": column, "n": range(rows)}))


@pytest.mark.parametrize("bad", [0, 1499, 2999])
def test_a_cell_that_cannot_be_read_is_none_and_the_others_are_there(bad: int) -> None:
    table = no_utf8(3000, bad)
    for each in (table, table.select(range(3000))):
        cells = list(cells_of(each, "caption"))
        assert cells == [None if row == bad else f"cat {row}" for row in range(3000)]
        assert list(cells_of(each, "n")) == list(range(3000))


def test_a_row_that_cannot_be_read_raises_when_it_is_asked() -> None:
    table = no_utf8(40, bad=3)
    rows = list(rows_at(table, range(40)))
    assert [row["caption"] for number, row in enumerate(rows) if number != 3] == [
        f"cat {n}" for n in range(40) if n != 3
    ]
    for row in (rows[3], row_at(table, 3)):
        assert readable_cell(row, "caption") is None
        with pytest.raises(SampleError, match="row 3: cannot be read: UnicodeDecodeError: 'utf-8' codec"):
            row.get("caption")
        with pytest.raises(SampleError):
            dict(row)


def picture(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}


def test_files_and_classes_inside_lists_and_objects() -> None:
    classes = ClassLabel(names=["red", "blue"])
    features = Features(
        {
            "label": classes,
            "labels": List(classes),
            "deep": List(List({"label": classes, "n": Value("int64")})),
            "images": List(Image()),
            "turns": List({"image": Image(), "sound": List(Image())}),
            "facts": Json(),
        }
    )
    rows = [
        {
            "label": 1,
            "labels": [0, 1, -1],
            "deep": [[{"label": 0, "n": 7}], []],
            "images": [picture(b"\x89PNG cut"), None],
            "turns": [{"image": picture(b"no picture"), "sound": [picture(b"no sound")]}],
            "facts": {"a": 0.5},
        },
        {"label": None, "labels": None, "deep": None, "images": [], "turns": [], "facts": None},
    ]
    table = undecoded(Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features))
    named = {"label": "blue", "labels": ["red", "blue", None], "deep": [[{"label": "red", "n": 7}], []]}
    assert list(table) == [{**rows[0], **named}, rows[1]]
    assert undecoded(table).features == table.features
