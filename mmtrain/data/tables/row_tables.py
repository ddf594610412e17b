"""Tables of text, read by rows: JSON and text with separators. A table is converted once, into a cache."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mmtrain.data.tables.class_folders import KIND_OF
from mmtrain.data.tables.delimited import Delimited
from mmtrain.data.tables.json_layouts import COCO
from mmtrain.data.tables.json_rows import pieces_of_lines, rows_of_json, rows_of_lines, rows_of_piece
from mmtrain.data.tables.tables import split_name, undecoded
from mmtrain.io.atomic import atomic_write

if TYPE_CHECKING:
    import datasets

METADATA = "metadata"  # a table with the column file_name, in the folder of its files
TEXTS = ("jsonl", "json", "csv", "tsv")
_PROMISED = {"csv": ",", "tsv": "\t"}
_VERSION = 3  # of what is made of a file: to be raised when that changes
_Rows = Iterator[tuple[Mapping[str, Any], int]]


def rows_of(path: Path, *, is_examined: bool = True) -> tuple[Callable[[], _Rows], list[str]]:
    """What gives the rows of a file, each with its size; and what a person should know, complete after the last row.

    Args:
        path: a file that ends in one of `TEXTS`.
        is_examined: whether a table with separators is checked before its rows are returned.

    Raises:
        ValueError: for what is no table; the rows raise it for what is wrong further down.
    """
    kind = path.suffix[1:].lower()
    read: Callable[[], _Rows]
    notes: list[str] = []
    if kind == "jsonl":
        read = partial(rows_of_lines, path)
    elif kind == "json":
        rows, notes = rows_of_json(path)
        read = lambda: ((row, 1000) for row in rows)  # noqa: E731
    else:
        table = Delimited(path, _PROMISED[kind], is_examined=is_examined)
        read, notes = table.rows, table.notes
    if _is_metadata(path):
        return lambda: ((_with_file(row, path.parent.name), size) for row, size in read()), notes
    return read, notes


def _is_metadata(path: Path) -> bool:
    """Whether a file is a table of the files in its folder, which is that of a split."""
    return is_metadata_name(path) and split_name(path.parent.name) is not None


def is_metadata_name(path: Path) -> bool:
    """Whether a file in the folder of a split is its table by its name."""
    return (path.stem == METADATA and path.suffix[1:].lower() in TEXTS) or path.name == COCO


def _with_file(row: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """A row of metadata, whose file_name becomes a path from the folder above, under image, audio or video."""
    name = row.get("file_name")
    if not isinstance(name, str):
        return row
    kind = KIND_OF.get(Path(name).suffix.lower(), "file_name")
    return {("file_name" if kind in row else kind): f"{folder}/{name}"} | {
        n: c for n, c in row.items() if n != "file_name"
    }


def rows_table(path: Path) -> tuple["datasets.Dataset", Sequence[str]]:
    """The table of a file that ends in one of `TEXTS`, on disk, and what a person should know of it.

    Raises:
        ValueError: for what cannot be read, with the line.
        OSError: when the cache cannot be written.
    """
    import datasets
    from datasets.table import MemoryMappedTable

    from mmtrain.data.tables.arrow_rows import Lines, batches_of, write_rows

    facts = path.stat()
    made_of = [_VERSION, str(path.absolute()), facts.st_size, facts.st_mtime_ns]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    kept = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "mmtrain" / f"{key}.arrow"
    noted = kept.with_suffix(".json")
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            if not kept.is_file():
                rows, notes = rows_of(path)

                def batches() -> Iterator[Mapping[str, Sequence[Any]] | Lines]:
                    if path.suffix.lower() != ".jsonl" or _is_metadata(path):
                        yield from batches_of(rows())
                        return
                    for lines, first in pieces_of_lines(path):
                        yield Lines(
                            lines, partial(lambda *piece: batches_of(rows_of_piece(path, *piece)), lines, first)
                        )

                with atomic_write(kept) as part:
                    write_rows(part, batches)
                    with atomic_write(noted) as text:  # complete before its table is there
                        text.write_text(json.dumps(notes))
    table = datasets.Dataset(MemoryMappedTable.from_file(str(kept)), fingerprint=key)
    return undecoded(table), json.loads(noted.read_text())
