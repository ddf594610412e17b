"""Evenly spaced rows of large tables, for a survey. Works with any kind of table."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtrain.data.sources.files import tables_of
from mmtrain.data.tables.folder_tables import SplitFiles
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables, readable_cell, row_at


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..count-1, evenly spaced.

    >>> evenly_spaced(10, 4), evenly_spaced(3, 5)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    return [nth * count // most for nth in range(most)] if count > most else list(range(count))


class SubsampledSource:
    """A source whose tables have at most `most` rows per split.

    Args:
        source: as in DataModule.
        split: how a lone table is divided.
        most: rows of a split.
        restrict_paths: as in DataModule.

    Attributes:
        num_rows: by split, the number of rows of the full table; filled when the source is called.
    """

    def __init__(
        self, source: Callable[[], Path | SplitFiles | Tables], *, split: Split, most: int, restrict_paths: bool = True
    ) -> None:
        self._source = source
        self._split = split
        self._most = most
        self._confine = restrict_paths
        self.num_rows: dict[str, int] = {}

    def __call__(self) -> Tables:
        """The tables with at most `most` rows."""
        tables = tables_of(self._source(), self._split, restrict_paths=self._confine)
        self.num_rows = {split: len(table) for split, table in tables.splits.items()}
        splits = {split: subsample(table, self._most) for split, table in tables.splits.items()}
        return replace(tables, splits=splits, order=None)


def subsample(table: Any, most: int) -> Any:
    """The table itself, or a table with at most `most` of its rows."""
    import datasets

    rows = evenly_spaced(len(table), most)
    if len(rows) == len(table):
        return table
    return table.select(rows) if isinstance(table, datasets.Dataset) else SubsampledTable(table, rows)


class SubsampledTable:
    """Some rows of a table."""

    def __init__(self, table: Any, rows: list[int]) -> None:
        self._table = table
        self._rows = rows
        self.column_names = table.column_names
        self._fingerprint = f"{table._fingerprint}-{len(rows)}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: int | str) -> Any:
        return self._column(key) if isinstance(key, str) else self._table[self._rows[key]]

    def _column(self, column: str) -> Iterator[Any]:
        for row in self._rows:
            yield readable_cell(row_at(self._table, row), column)
