"""The first rows of the tables of a folder, read without `datasets` and torch: what is wrong is said in a moment.

A `Head` can be asked as a `datasets.Dataset`, so that the same checks look at both.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.tables.cell_checks import FIRST_ROWS
from mmtrain.data.tables.class_folders import Columns
from mmtrain.data.tables.file_lookup import with_found_files
from mmtrain.data.tables.folder_layout import ending
from mmtrain.data.tables.folder_tables import is_saved, tables_of_folder, unreadable
from mmtrain.data.tables.json_rows import first_objects, names_in
from mmtrain.data.tables.row_tables import rows_of
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables, no_rows

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

    def remove_columns(self, name: str) -> "Head":
        """The rows without a column."""
        return self.select_columns([column for column in self.column_names if column != name])

    def select_columns(self, names: Sequence[str]) -> "Head":
        """The rows with these columns alone."""
        return Head([{name: row.get(name) for name in names} for row in self._rows], names, is_whole=self.is_whole)

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
        self._split.check_columns(table, name)
        return {"train": table}


def heads_of(root: Path, split: Split) -> Tables | None:
    """The heads of the tables of a folder, as `data_folder` gives it; None for what only `datasets` can read.

    Raises:
        ConfigError: as `read_folder` does, for what can be seen so early.
    """
    if is_saved(root):
        return None
    return with_found_files(tables_of_folder(root, _CutOfHeads(split), read=_head, make=_of_columns, most=FIRST_ROWS))


def _of_columns(columns: Columns) -> Head:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return Head(rows, list(columns), is_whole=len(rows) < FIRST_ROWS)


def _head(path: Path, split: str) -> tuple[Head, Sequence[str]]:
    if not path.stat().st_size:
        raise no_rows(str(path), split)
    kind = ending(path)
    notes: Sequence[str] = ()
    try:
        if kind in ("parquet", "arrow"):
            head = _of_parquet(path) if kind == "parquet" else _of_arrow(path)
        else:
            head, notes = _of_text(path)
    except (ValueError, OSError) as error:
        raise unreadable(path, error) from error
    if head.is_whole and not len(head):
        raise no_rows(str(path), split)
    return head, notes


def _of_text(path: Path) -> tuple[Head, Sequence[str]]:
    is_large = path.stat().st_size > _LARGE
    if ending(path) == "json" and is_large and (first := first_objects(path, FIRST_ROWS)):
        return _of_rows(first, is_whole=False), ()
    rows, notes = rows_of(path, is_examined=not is_large)
    found = (row for row, _ in rows())
    some = list(itertools.islice(found, FIRST_ROWS))
    return _of_rows(some, is_whole=next(found, None) is None), notes


def _of_rows(rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> Head:
    return Head(rows, names_in(rows), is_whole=is_whole)


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
