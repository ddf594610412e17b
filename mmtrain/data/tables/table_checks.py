"""Checks of the tables of a run. They work for complete tables and for their first rows."""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mmtrain.data.tables.cell_checks import check_cells
from mmtrain.data.tables.column_types import LOOKED_AT, guess_columns
from mmtrain.data.tables.columns import Column, is_empty, typed
from mmtrain.data.tables.tables import Tables, cells_of, rows_at
from mmtrain.errors import ConfigError


def no_table(tables: Tables, name: str) -> ConfigError:
    """The message for a split that is not there."""
    add = f"add {name}.jsonl (or .csv, .parquet ...), or set data.{name}=FILE"
    return ConfigError(f"{tables.folder} has no {name} table; it has {', '.join(tables.splits)}\n    {add}")


def check_size(num_rows: int, batch_size: int, folder: Path) -> None:
    """Check that training has enough rows for a step.

    Raises:
        ConfigError: if it has fewer.
    """
    if num_rows < batch_size:
        rows = "row" if num_rows == 1 else "rows"
        raise ConfigError(
            f"data.batch_size = {batch_size} is larger than the training split of {num_rows} {rows} in {folder}\n"
            f"    set data.batch_size={num_rows} or less"
        )


def faults_of_cells(
    table: Any,
    columns: Mapping[str, Column],
    kinds: Mapping[str, str | None],
    *,
    inputs: Collection[str],
    where: str,
    folder: Path,
    is_whole: bool = True,
) -> Iterator[tuple[str, str]]:
    """Faults by input or target: an empty column, or cells that do not fit.

    Args:
        table: of training.
        columns: by input or target.
        kinds: by input or target, how its cells are read (`READ_AS` of cell_checks.py).
        inputs: which of them are inputs: those must hold something.
        where: the table, for messages.
        folder: what relative paths start from.
        is_whole: whether these are all its rows.
    """
    for name, column in columns.items():
        cells = cells_of(table, column)
        first = next((cell for cell in cells if not is_empty(cell)), None)
        if first is None and is_whole and name in inputs:
            yield (
                name,
                f"{where}: the column {column} is empty in every row\n"
                f"    fill it, name another by data.columns.{name}, or leave it out by ~encoder.{name}",
            )
        elif first is not None and isinstance(column, str):
            try:
                check_cells(name, kinds.get(name), chain([first], cells), column=column, where=where, folder=folder)
            except ConfigError as error:
                guesses = _other(name, kinds.get(name), table, column)
                yield name, str(error).replace(f"by data.columns.{name}", f"by {guesses}") if guesses else str(error)


def _other(name: str, kind: str | None, table: Any, column: str) -> str | None:
    """The column that an input or target may have been meant to have, as it is typed."""
    rows = list(rows_at(table, range(min(len(table), LOOKED_AT))))
    result = guess_columns({name: kind}, table.column_names, rows, taken=[column])
    return typed(result) if result else None
