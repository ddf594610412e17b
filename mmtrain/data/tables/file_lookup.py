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
_ARRAYS = (".npy", ".npz")


def locate_files(tables: Tables) -> Tables:
    """The tables, with paths from their folder on in columns of names of files that are in folders below it.

    A column is changed when none of its first cells is the path of a file, and all are the end of the path of one file.
    Splits with a table each can have files of the same names in folders such as train2017 and val2017.
    """
    splits, notes = dict(tables.splits), list(tables.notes)
    has_own_tables = len(set(tables.names.values())) == len(tables.names)
    below: dict[Path, Mapping[str, Sequence[str]]] = {}
    for split, table in tables.splits.items():
        folder = tables.folder_of(split)
        for column in table.column_names:
            cells = list(islice((cell for cell in cells_of(table, column) if cell is not None), _LOOKED_AT))
            if not cells or not all(_is_lost(cell, folder) for cell in cells):
                continue
            files = below[folder] = below[folder] if folder in below else _files_below(folder)
            own = split if has_own_tables else None
            first = _place(cells[0], files, own)
            if first is None or any(_place(cell, files, own) is None for cell in cells):
                continue
            splits[split] = _moved(splits[split], column, files, own)
            where = tables.names[split]
            notes.append(f"{where}: the files of {column} are found in folders below {folder}, such as {first}")
    return replace(tables, splits=splits, notes=notes)


def _is_lost(cell: Any, folder: Path) -> bool:
    is_name = isinstance(cell, str) and Path(cell).suffix.lower() in (*KIND_OF, *_ARRAYS)
    return is_name and not os.path.isabs(cell) and not os.path.exists(folder / cell)  # noqa: PTH110, PTH117 - any text


def _files_below(folder: Path) -> Mapping[str, Sequence[str]]:
    """By name of a file, the paths that have it, from the folder on."""
    results = defaultdict(list)
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        start = os.path.relpath(place, folder)
        for name in names:
            results[name].append(Path(start, name).as_posix())
    return results


def _place(cell: Any, files: Mapping[str, Sequence[str]], split: str | None) -> str | None:
    """The only path that ends in a cell; of several, the only one in a folder that is named like the split."""
    if not isinstance(cell, str):
        return None
    results = [path for path in files.get(cell.rpartition("/")[2], ()) if path.endswith(f"/{cell.removeprefix('./')}")]
    if len(results) > 1 and split is not None:
        results = [path for path in results if any(part.startswith(split) for part in path.lower().split("/")[:-1])]
    return results[0] if len(results) == 1 else None


def _moved(table: Any, column: str, files: Mapping[str, Sequence[str]], split: str | None) -> Any:
    """The table, whose column has the paths; a cell for which there is none stays as it is."""
    cells = [_place(cell, files, split) or cell for cell in cells_of(table, column)]
    order = table.column_names
    new = f"{column} in folders"  # a table without columns would have no rows
    return table.add_column(new, cells).remove_columns(column).rename_column(new, column).select_columns(order)
