"""What can be seen to be wrong with the rows of a table before any file is opened."""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mmtrain.data.tables.columns import Column, content_of
from mmtrain.data.tables.paths import leads_out, shown_path
from mmtrain.data.tables.scale import in_short
from mmtrain.data.tables.tables import SupportsColumns, cells_of
from mmtrain.errors import ConfigError

_LOOKED_AT = 100  # paths whose links are followed, and cells of a table that reads a file for each


def check_rows(table: Any, name: str, paths: Mapping[str, Column], folder: Path, *, restrict_paths: bool) -> None:
    """Check the ids, and the paths if they must stay in the folder.

    This refuses a table early and once. A path that it does not see, such as a link among other files, is refused when
    its file is opened (`checked_path`).

    Args:
        table: a `datasets.Dataset`, or another table with its methods.
        name: of the table, for messages.
        paths: by input, the column that can hold paths.
        folder: what relative paths start from, as `data_folder` gives it.
        restrict_paths: whether a path may lead out of the folder.

    Raises:
        ConfigError: for two rows with one id, a path that leads out, or links that lead out in all of the first rows;
            with the file and the rows.
    """
    if "id" in table.column_names:
        _check_ids(cells_of(table, "id"), name)
    columns = [(m, part) for m, column in paths.items() for part in ([column] if isinstance(column, str) else column)]
    for modality, column in columns if restrict_paths else ():
        if column in table.column_names:
            what = f"{modality} column {column}"
            _check_words(table, column, name, what, folder)
            _check_links(table, column, name, what, folder)


def _check_ids(ids: Any, name: str) -> None:
    first: dict[str, int] = {}
    for row, id in enumerate(ids):
        if id is None or id == "":
            continue
        if str(id) in first:
            raise ConfigError(
                f"{name}: the rows {first[str(id)] + 1} and {row + 1} have the same id {in_short(id)!r}\n"
                "    give each row its own, or drop the column"
            )
        first[str(id)] = row


def _check_words(table: Any, column: str, name: str, what: str, folder: Path) -> None:
    """Refuse a table with a path that leads out by its words: it is absolute, or climbs up by `..`."""
    for row, content in _contents(table, column, folder):
        if isinstance(content, str) and _is_suspect(content) and leads_out(folder, content):
            raise _leading_out(f"{name}, row {row + 1}: the {what} leads out of the folder: {shown_path(content)}")


def _check_links(table: Any, column: str, name: str, what: str, folder: Path) -> None:
    """Refuse a table whose first files are all behind links that lead out, such as a linked folder of pictures."""
    first: list[tuple[int, str]] = []
    for row, cell in enumerate(islice(cells_of(table, column), _LOOKED_AT)):
        results = list(_inner(cell))
        first += [(row, content) for content in results if isinstance(content, str)]
        if len(first) >= _LOOKED_AT or any(isinstance(content, bytes) for content in results):
            break
    if first and all(leads_out(folder, path) for _, path in first):
        row, path = first[0]
        real = os.path.realpath(folder / path)
        raise _leading_out(
            f"{name}, row {row + 1}: the {what} leads out of the folder by a link: {shown_path(path)} is {real}"
        )


def _leading_out(what: str) -> ConfigError:
    return ConfigError(f"{what}\n    fix the path, or allow it with data.restrict_paths=false")


def _contents(table: Any, column: str, folder: Path) -> Iterator[tuple[int, Any]]:
    """The rows and contents to check: all of a table in memory, the first ones if each is read from a file."""
    if isinstance(table, SupportsColumns):
        if any(leads_out(folder, path) for path in _suspects(table.data.column(column), folder)):
            yield from ((row, content) for row, cell in enumerate(cells_of(table, column)) for content in _inner(cell))
        return
    cells = table[column]
    if isinstance(cells, list):
        yield from ((row, content) for row, cell in enumerate(cells) for content in _inner(cell))
        return
    for row, cell in enumerate(islice(cells, _LOOKED_AT)):
        for content in _inner(cell):
            if isinstance(content, bytes):  # each further one would be read from its shard
                return
            yield row, content


def _inner(cell: Any) -> Iterator[Any]:
    return map(content_of, cell if isinstance(cell, list) else [cell])


def _is_suspect(path: str) -> bool:
    return os.path.isabs(path) or ".." in path  # noqa: PTH117 - a word, not a Path


def _suspects(column: Any, folder: Path) -> Iterator[str]:
    """The paths of an Arrow column that may lead out by their words; files that are in the table are not touched."""
    return chain.from_iterable(_suspects_of(chunk, f"{folder}{os.sep}") for chunk in column.chunks)


def _suspects_of(array: Any, start: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json":  # of cells of several types
        cells = (json.loads(text) for text in array.storage.drop_null().to_pylist())
        return [path for cell in cells for path in _inner(cell) if isinstance(path, str) and _is_suspect(path)]
    if pa.types.is_dictionary(kind):
        return _suspects_of(array.dictionary_decode(), start)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _suspects_of(array.flatten(), start)
    if pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(n).name for n in range(kind.num_fields)}:
        return _suspects_of(array.field("path").filter(pc.is_null(array.field("bytes"))), start)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return []
    absolute = pc.and_not(pc.match_substring_regex(array, r"^(/|\\|[A-Za-z]:)"), pc.starts_with(array, start))
    return array.filter(pc.or_(absolute, pc.match_substring(array, ".."))).to_pylist()
