"""The first rows of the tables of a folder, read without `datasets` and torch: what is wrong is said in a moment.

A `Head` can be asked as a `datasets.Dataset`, so that the same checks look at both.
"""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.files import is_saved, tables_of_folder, unreadable
from mmtrain.data.folders import Columns
from mmtrain.data.head_checks import FIRST_ROWS
from mmtrain.data.json_rows import NoRowsError, first_objects, names_in, not_json, parse_json, rows_of_json
from mmtrain.data.layout import ending
from mmtrain.data.sample_errors import read_or
from mmtrain.data.splits import Split
from mmtrain.data.tables import Tables, no_rows

_ROWS_OF_ARROW = 20  # whole files can stand in them
_LARGE = 20_000_000  # bytes of JSON that are not read whole to see the first rows


class Head:
    """The first rows of a table.

    Attributes:
        column_names: of the table, as far as its first rows tell.
        is_whole: whether these are all its rows.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], column_names: Sequence[str], *, is_whole: bool) -> None:
        self._rows = rows
        self.column_names = list(column_names)
        self.is_whole = is_whole

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: int | str) -> Any:
        return self._rows[key] if isinstance(key, int) else [row.get(key) for row in self._rows]

    def add_column(self, name: str, column: list[Any]) -> "Head":
        """The rows with a column more."""
        rows = [{**row, name: cell} for row, cell in zip(self._rows, column, strict=True)]
        return Head(rows, [*self.column_names, name], is_whole=self.is_whole)

    def select(self, rows: Sequence[int]) -> "Head":
        """Some of the rows."""
        return Head([self._rows[row] for row in rows], self.column_names, is_whole=self.is_whole)


class _CutOfHeads:
    """A table that is known as a whole is cut as ever; of another it is only known that some of it trains."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def cut(self, table: Head, name: str) -> dict[str, Head]:
        if table.is_whole:
            return self._split.cut(table, name)
        self._split.column_of(table, name)
        return {"train": table}


def heads_of(root: Path, split: Split) -> Tables | None:
    """The heads of the tables of a folder, as `data_folder` gives it; None for what only `datasets` can read.

    Raises:
        ConfigError: as `read_folder` does, for what can be seen so early.
    """
    if is_saved(root):
        return None
    try:
        return tables_of_folder(root, _CutOfHeads(split), read=_head, make=_of_columns, most=FIRST_ROWS)
    except csv.Error:  # such as a very long cell, which others read
        return None


def _of_columns(columns: Columns) -> Head:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return Head(rows, list(columns), is_whole=len(rows) < FIRST_ROWS)


def _head(path: Path, split: str) -> Head:
    if not path.stat().st_size:
        raise no_rows(str(path), split)
    kind = ending(path)
    try:
        if kind in ("parquet", "arrow"):
            head = _of_parquet(path) if kind == "parquet" else _of_arrow(path)
        elif kind == "json" and path.stat().st_size > _LARGE:
            head = _of_rows(first_objects(path, FIRST_ROWS), is_whole=False)
        elif kind == "json":
            head = _of_rows(rows_of_json(path), is_whole=True)
        else:
            rows = _lines(path) if kind == "jsonl" else _cells(path, "\t" if kind == "tsv" else ",")
            first = list(itertools.islice(rows, FIRST_ROWS))
            head = _of_rows(first, is_whole=next(rows, None) is None)
    except (ValueError, OSError) as error:
        raise unreadable(path, error) from error
    if head.is_whole and not len(head):
        raise no_rows(str(path), split)
    return head


def _of_rows(rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> Head:
    return Head(rows, names_in(rows), is_whole=is_whole)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ValueError(not_json(number, error)) from None
            if not isinstance(row, dict):
                shown = 'write an object a line, such as {"image": "a.jpg", "caption": "a dog"}'
                raise NoRowsError(f"line {number} holds no object, but {type(row).__name__}", shown)
            yield row


def _cells(path: Path, delimiter: str) -> Iterator[dict[str, str | None]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names: list[str] = []
        for row in reader:
            if names and len(row) > len(names):
                what = f"line {reader.line_num} has {len(row)} fields under {len(names)} column names"
                raise ValueError(f"{what}; quote what holds a comma")
            if names and row:
                yield {name: cell or None for name, cell in itertools.zip_longest(names, row)}
            elif row:
                names = [name or f"Unnamed: {place}" for place, name in enumerate(row)]


def _of_parquet(path: Path) -> Head:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        first = next(file.iter_batches(batch_size=_ROWS_OF_ARROW), None)
        rows = [] if first is None else _rows_of(first)
        return Head(rows, file.schema_arrow.names, is_whole=len(rows) == file.metadata.num_rows)


def _of_arrow(path: Path) -> Head:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        first = next(iter(stream), None)
        rows = [] if first is None else _rows_of(first.slice(0, _ROWS_OF_ARROW))
        whole = first is not None and len(rows) == first.num_rows and next(iter(stream), None) is None
        return Head(rows, stream.schema.names, is_whole=first is None or whole)


def _rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch; None for a cell that cannot be read, such as a text that is not UTF-8."""
    columns = {
        name: [read_or(None, cell, lambda cell: cell.as_py()) for cell in column]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
