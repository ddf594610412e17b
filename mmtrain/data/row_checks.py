"""What can be seen to be wrong with the rows of a table before any file is opened."""

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtrain.data.columns import Column, content_of
from mmtrain.data.tables import cells_of
from mmtrain.errors import ConfigError


def check_rows(table: Any, name: str, paths: Mapping[str, Column], folder: Path, *, confine: bool) -> None:
    """Look at the ids, and at the paths when they must stay in the folder.

    Args:
        table: a `datasets.Dataset`, or what can be asked as one.
        name: of the table, for messages.
        paths: by input, the column that can hold paths.
        folder: what relative paths start from.
        confine: whether a path may lead out of the folder.

    Raises:
        ConfigError: for two rows with one id, or a path that leads out; with the file and the rows.
    """
    if "id" in table.column_names:
        _check_ids(cells_of(table, "id"), name)
    for modality, column in paths.items() if confine else ():
        if isinstance(column, str) and column in table.column_names:
            _check_paths(cells_of(table, column), name, f"{modality} column {column}", folder)


def _check_ids(ids: Any, name: str) -> None:
    first: dict[str, int] = {}
    for row, id in enumerate(ids):
        if id is None or id == "":
            continue
        if str(id) in first:
            raise ConfigError(
                f"{name}: the rows {first[str(id)] + 1} and {row + 1} have the same id {id!r}\n"
                "    give each row its own, or drop the column"
            )
        first[str(id)] = row


def _check_paths(cells: Any, name: str, what: str, folder: Path) -> None:
    for row, cell in enumerate(cells):
        for content in map(content_of, cell if isinstance(cell, list) else [cell]):
            if isinstance(content, bytes):
                return  # the files themselves stand in the table; to read them all would take long
            if isinstance(content, str) and _leads_out(content, folder):
                raise ConfigError(
                    f"{name}, row {row + 1}: the {what} leads out of the folder: {content}\n"
                    "    mend the path, or allow it with data.confine=false"
                )


def _leads_out(path: str, folder: Path) -> bool:
    """Whether a path leads out of the folder, by its words; links are not followed.

    >>> _leads_out("a/../b.png", Path("/x")), _leads_out("../b.png", Path("/x")), _leads_out("/x/b.png", Path("/x"))
    (False, True, False)
    """
    place = posixpath.normpath(posixpath.join(folder.as_posix(), path))
    return not place.startswith(posixpath.normpath(folder.as_posix()) + "/")
