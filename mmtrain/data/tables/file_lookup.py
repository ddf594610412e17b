"""Files that a table names without the folders they are in: they are looked for below the folder of the table."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mmtrain.data.tables.class_folders import KIND_OF, is_hidden
from mmtrain.data.tables.tables import Tables, cells_of

_LOOKED_AT = 100  # cells


def with_found_files(tables: Tables) -> Tables:
    """The tables, with paths from their folder on in columns of names of files that are in folders below it.

    A column is changed when none of its first cells is the path of a file, and all are the end of the path of one file.
    """
    splits, notes = dict(tables.splits), list(tables.notes)
    files: Mapping[str, Sequence[str]] | None = None
    for split, table in tables.splits.items():
        for column in table.column_names:
            cells = list(islice((cell for cell in cells_of(table, column) if cell is not None), _LOOKED_AT))
            if not cells or not all(_is_lost(cell, tables.folder) for cell in cells):
                continue
            files = _files_below(tables.folder) if files is None else files
            first = _place(cells[0], files)
            if first is None or any(_place(cell, files) is None for cell in cells):
                continue
            splits[split] = _moved(splits[split], column, files)
            where = tables.names[split]
            notes.append(f"{where}: the files of {column} are found in folders below {tables.folder}, such as {first}")
    return replace(tables, splits=splits, notes=notes)


def _is_lost(cell: Any, folder: Path) -> bool:
    is_name = isinstance(cell, str) and Path(cell).suffix.lower() in KIND_OF
    return is_name and not os.path.isabs(cell) and not os.path.exists(folder / cell)  # noqa: PTH110, PTH117 - any text


def _files_below(folder: Path) -> Mapping[str, Sequence[str]]:
    """By name of a file, the paths that have it, from the folder on."""
    found = defaultdict(list)
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        start = os.path.relpath(place, folder)
        for name in names:
            found[name].append(Path(start, name).as_posix())
    return found


def _place(cell: Any, files: Mapping[str, Sequence[str]]) -> str | None:
    """The only path that ends in a cell."""
    if not isinstance(cell, str):
        return None
    found = [path for path in files.get(cell.rpartition("/")[2], ()) if path.endswith(f"/{cell.removeprefix('./')}")]
    return found[0] if len(found) == 1 else None


def _moved(table: Any, column: str, files: Mapping[str, Sequence[str]]) -> Any:
    """The table, whose column has the paths; a cell for which there is none stays as it is."""
    cells = [_place(cell, files) or cell for cell in cells_of(table, column)]
    order = table.column_names
    return table.remove_columns(column).add_column(column, cells).select_columns(order)
