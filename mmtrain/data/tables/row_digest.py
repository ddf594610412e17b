"""Digests of the rows that a run reads. A resumed run compares them, so that other data is noticed.

Compared are the number of rows and, for each column that is read, its cells in order. Text, numbers and classes are
compared as they are, the bytes of a medium by their size and first KiB. A missing column is the same as one of empty
cells. Files that a column names are compared by their size and first KiB, for a sample of the rows.

The digest of a column is one of values: the file format, the place of the folder, the machine and the process do not
matter. The `_fingerprint` of `datasets` does not serve: it follows from the path and the time of a file.
"""

import hashlib
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mmtrain.data.tables.arrow_digest import (
    HEAD,
    ArrowDigest,
    OfDatasets,
    all_cells,
    cell_size,
    cells_at,
    digest_of,
    paths_in,
)
from mmtrain.data.tables.columns import content_of, is_empty
from mmtrain.data.tables.tables import rows_at

NUM_SAMPLED = 1000  # rows of a column that is not compared completely, and files that are compared
_MOST_BYTES = 1 << 30  # of a column that is compared completely
_FILES_AT_ONCE = 8

RowFacts = dict[str, Any]


@runtime_checkable
class DigestsRows(Protocol):
    """A table that knows itself what is compared of it, such as shards and mixtures."""

    def digest_rows(self, columns: Sequence[str], *, media: Collection[str], folder: Path) -> RowFacts:
        """As the function `digest_rows`."""
        ...


def digest_rows(table: Any, columns: Sequence[str], *, media: Collection[str], folder: Path) -> RowFacts:
    """What a resumed run compares of a table.

    Args:
        table: a `datasets.Dataset`, or another table with its methods.
        columns: that are read; the table need not have them.
        media: of these, those whose cells are files, or paths to files.
        folder: what relative paths start from.

    Returns:
        count: the number of rows; columns: by column, a digest, of those that have some value; files: by column, how
        many files a sample of the rows names, their size and a digest.
    """
    if isinstance(table, DigestsRows):
        return table.digest_rows(columns, media=media, folder=folder)
    available = [column for column in dict.fromkeys(columns) if column in table.column_names]
    if not isinstance(table, OfDatasets):
        rows = spread(len(table), NUM_SAMPLED)
        cells = list(rows_at(table, rows))
        return row_facts(len(table), {column: digest_cells(row.get(column) for row in cells) for column in available})
    digests = {c: _digest_column(table, c, folder if c in media else None) for c in available}
    files = {c: digest_files(_paths_of(table, c), folder) for c in available if c in media}
    return row_facts(len(table), digests, files)


def row_facts(
    count: int,
    columns: Mapping[str, str | None],
    files: Mapping[str, str | None] = {},
    shards: str | None = None,
) -> RowFacts:
    """The facts of a table, without columns that have no value.

    Args:
        count: of its rows.
        columns: by column, a digest.
        files: by column, what is compared of the files that it names.
        shards: a digest of the shards that it is read from.
    """
    facts: RowFacts = {"count": count} | ({} if shards is None else {"shards": shards})
    for name, digests in (("columns", columns), ("files", files)):
        if available := {column: digest for column, digest in digests.items() if digest is not None}:
            facts[name] = available
    return facts


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers 0..count-1, evenly spread, the first and the last among them.

    >>> spread(10, 4), spread(3, 5), spread(10, 1)
    ([0, 3, 6, 9], [0, 1, 2], [0])
    """
    return [nth * (count - 1) // max(1, most - 1) for nth in range(most)] if count > most else list(range(count))


def _digest_column(table: OfDatasets, column: str, folder: Path | None) -> str | None:
    """The digest of the cells of a column.

    Args:
        table: that has it.
        column: its name.
        folder: what paths in it start from; None for a column without paths.
    """
    places = [] if folder is None else [folder.absolute(), folder.resolve()]
    digest = ArrowDigest([f"{place.as_posix().rstrip('/')}/" for place in places])
    is_large = cell_size(table, column) * len(table) > _MOST_BYTES
    rows = spread(len(table), NUM_SAMPLED)
    for piece in cells_at(table, column, rows) if is_large else all_cells(table, column):
        digest.add(piece)
    return digest.hexdigest()


def _paths_of(table: OfDatasets, column: str) -> list[str]:
    """The paths in a sample of the rows."""
    some = cells_at(table, column, spread(len(table), NUM_SAMPLED))
    return [path for cell in some for path in paths_in(cell)]


def digest_files(paths: Iterable[str], folder: Path) -> str | None:
    """How many of these files there are, their size, and a digest of the sizes and the first KiB of each.

    Args:
        paths: absolute, or relative to the folder; of many, a sample is compared.
        folder: what relative paths start from.

    Returns:
        Such as "43 of 44 files, 12345 bytes (1a2b...)", when one is missing; None without a path.
    """
    each = list(dict.fromkeys(paths))
    some = [each[nth] for nth in spread(len(each), NUM_SAMPLED)]
    if not some:
        return None
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:  # a file system over a network takes its time for each
        results = list(pool.map(lambda path: _size_and_head(folder / path), some))
    sizes = [size for size, _ in results if size is not None]
    return f"{len(sizes)} of {len(results)} files, {sum(sizes)} bytes ({digest_of(results)})"


def _size_and_head(path: Path) -> tuple[int | None, str]:
    """Size and digest of a file; (None, "") if it cannot be read, such as a pipe."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None, ""
        with path.open("rb") as file:
            return status.st_size, hashlib.blake2b(file.read(HEAD), digest_size=8).hexdigest()
    except (OSError, ValueError):  # ValueError: a name with a zero in it
        return None, ""


def digest_cells(cells: Iterable[Any]) -> str | None:
    """A digest of the cells of a column; None where all are empty."""
    plain = [_plain_or_why_not(cell) for cell in cells]
    return None if all(cell is None for cell in plain) else digest_of(plain)


def _plain_or_why_not(cell: Any) -> Any:
    try:
        return _plain(cell)
    except RecursionError:
        return "nested too deeply"


def _plain(cell: Any) -> Any:
    """A cell as JSON: None for an empty one, an integer as an int, a medium as its size and first KiB."""
    content = content_of(cell)
    if isinstance(content, np.ndarray | np.generic):
        content = content.tolist()
    if isinstance(content, Image.Image):
        content = content.tobytes()
    if is_empty(content):
        return None
    if isinstance(content, bytes):
        return [len(content), hashlib.blake2b(content[:HEAD], digest_size=8).hexdigest()]
    if isinstance(content, float) and content.is_integer():
        return int(content)
    if isinstance(content, bool | int | float | str):
        return content
    if isinstance(content, list | tuple):
        return [_plain(part) for part in content]
    if isinstance(content, Mapping):
        return {str(key): _plain(part) for key, part in content.items() if not is_empty(part)}
    if isinstance(content, date | time | timedelta | Decimal):
        return str(content)
    return type(content).__name__  # not its text: that can have an address in memory
