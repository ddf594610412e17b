"""The first rows of the tables of a folder, read without `datasets` and torch, so that faults are reported quickly.

A `Head` has the methods of a `datasets.Dataset` that checks use. So the same checks work for both.
"""

import itertools
import json
import mmap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmtrain.data.tables.cell_checks import FIRST_ROWS
from mmtrain.data.tables.class_folders import Columns
from mmtrain.data.tables.columns import USUAL_NAMES, Column
from mmtrain.data.tables.file_lookup import locate_files
from mmtrain.data.tables.folder_layout import ending
from mmtrain.data.tables.folder_tables import SplitFiles, is_saved, tables_of_folder, unreadable
from mmtrain.data.tables.json_rows import first_objects, names_in
from mmtrain.data.tables.parquet_columns import readable_columns
from mmtrain.data.tables.row_tables import rows_of
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables, no_rows
from mmtrain.data.tables.texts import are_texts

_ROWS_OF_ARROW = 20  # a row can contain complete files
_LOOKED_IN = 1 << 28  # bytes in which names of columns are searched
_LARGE = 20_000_000  # bytes of JSON; of larger files only a part is read for the first rows


class Head:
    """The first rows of a table.

    Attributes:
        rows: the first ones.
        column_names: of the table, as far as its first rows have them.
        is_whole: whether these are all its rows.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], column_names: Sequence[str], *, is_whole: bool) -> None:
        self.rows = rows
        self.column_names = list(column_names)
        self.is_whole = is_whole

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        return self.rows[key] if isinstance(key, int) else [row.get(key) for row in self.rows]

    def add_column(self, name: str, column: list[Any]) -> "Head":
        """The rows with a column more."""
        rows = [{**row, name: cell} for row, cell in zip(self.rows, column, strict=True)]
        return Head(rows, [*self.column_names, name], is_whole=self.is_whole)

    def remove_columns(self, name: str) -> "Head":
        """The rows without a column."""
        return self.select_columns([column for column in self.column_names if column != name])

    def rename_column(self, name: str, new: str) -> "Head":
        """The rows with another name for a column."""
        rows = [{new if key == name else key: cell for key, cell in row.items()} for row in self.rows]
        return Head(rows, [new if key == name else key for key in self.column_names], is_whole=self.is_whole)

    def select_columns(self, names: Sequence[str]) -> "Head":
        """The rows with these columns alone."""
        return Head([{name: row.get(name) for name in names} for row in self.rows], names, is_whole=self.is_whole)

    def select(self, rows: Sequence[int]) -> "Head":
        """Some of the rows."""
        return Head([self.rows[row] for row in rows], self.column_names, is_whole=self.is_whole)


class _CutOfHeads:
    """Split a complete table as usual. Of another table it is only known that a part is for training."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def cut(self, table: Head, name: str) -> dict[str, Head]:
        if table.is_whole:
            return self._split.cut(table, name)
        self._split.check_columns(table, name)
        return {"train": table}

    def cut_training(self, table: Head, name: str) -> dict[str, Head]:
        if table.is_whole:
            return self._split.cut_training(table, name)
        return self.cut(table, name)

    def note(self, table: Head, splits: Mapping[str, Head], name: str) -> str | None:
        return self._split.note(table, splits, name) if table.is_whole else None


def heads_of(root: Path | SplitFiles, split: Split, wanted: Mapping[str, Column | None] | None = None) -> Tables | None:
    """The heads of the tables of a folder, as `data_folder` gives it; None for formats that only `datasets` can read.

    Args:
        root: the folder or file, or the file of each split.
        split: how a lone table is split.
        wanted: as of `tables_of_folder`.

    Raises:
        ConfigError: as `read_folder` does, for what can be seen so early.
    """
    if isinstance(root, Path) and is_saved(root):
        return None
    read = partial(_head, wanted=wanted or {})
    result = tables_of_folder(root, _CutOfHeads(split), read=read, make=_of_columns, most=FIRST_ROWS, wanted=wanted)
    return locate_files(result)


def _of_columns(columns: Columns) -> Head:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return Head(rows, list(columns), is_whole=len(rows) < FIRST_ROWS)


def _head(path: Path, split: str, *, wanted: Mapping[str, Column | None]) -> tuple[Head, Sequence[str]]:
    if not path.stat().st_size:
        raise no_rows(str(path), split)
    kind = ending(path)
    notes: Sequence[str] = ()
    try:
        if kind in ("parquet", "arrow"):
            head, notes = _of_parquet(path) if kind == "parquet" else (_of_arrow(path), ())
        else:
            head, notes = _of_text(path)
            if kind in ("json", "jsonl") and not head.is_whole:
                head = _with_late_columns(head, path, wanted)
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
    result = (row for row, _ in rows())
    some = list(itertools.islice(result, FIRST_ROWS))
    return _of_rows(some, is_whole=next(result, None) is None), notes


def _with_late_columns(head: Head, path: Path, wanted: Mapping[str, Column | None]) -> Head:
    """The head with the wanted columns that begin behind its rows, as far as the start of the file tells."""
    present_names = head.column_names
    names = {name: _names(name, column) for name, column in wanted.items()}
    late = [part for parts in names.values() if not set(parts) & set(present_names) for part in parts]
    if not late:
        return head
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        quoted = {name: json.dumps(name, ensure_ascii=False).encode() for name in late}
        results = [name for name in quoted if content.find(quoted[name], 0, _LOOKED_IN) >= 0]
    return Head(head.rows, [*present_names, *results], is_whole=False)


def _names(name: str, column: Column | None) -> Sequence[str]:
    """What the columns of an input or target can be called."""
    if column is None:
        return USUAL_NAMES.get(name, (name,))
    return [column] if isinstance(column, str) else column


def _of_rows(rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> Head:
    return Head(rows, names_in(rows), is_whole=is_whole)


def _of_parquet(path: Path) -> tuple[Head, Sequence[str]]:
    import pyarrow.parquet as pq

    columns, notes = readable_columns(path)
    with pq.ParquetFile(path, memory_map=True) as file:
        first = next(file.iter_batches(batch_size=_ROWS_OF_ARROW, columns=columns), None)
        rows = [] if first is None else _rows_of(first)
        return Head(rows, columns, is_whole=len(rows) == file.metadata.num_rows), notes


def _of_arrow(path: Path) -> Head:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        first = next(iter(stream), None)
        rows = [] if first is None else _rows_of(first.slice(0, _ROWS_OF_ARROW))
        is_complete = first is not None and len(rows) == first.num_rows and next(iter(stream), None) is None
        return Head(rows, stream.schema.names, is_whole=first is None or is_complete)


def _rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch; None for a cell that cannot be read, such as a text that is not UTF-8."""
    columns = {
        name: [read_or(None, cell, lambda cell: cell.as_py()) for cell in column]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for name, cells in columns.items():
        filled = [cell for cell in cells if cell is not None]
        if all(isinstance(cell, bytes) for cell in filled) and are_texts(filled):
            columns[name] = [None if cell is None else cell.decode() for cell in cells]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
