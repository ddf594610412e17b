"""What the first rows of training say: cells that cannot be what they are read as, and texts that will be cut.

A wrong column is named before anything is learned from it, and before a model is made for it.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmtrain.data.audio import AudioInput
from mmtrain.data.columns import is_empty
from mmtrain.data.image import ImageInput, content_of
from mmtrain.data.kinds import InputKind, TargetKind
from mmtrain.data.label import ClassLabel
from mmtrain.data.scale import in_short
from mmtrain.data.sequence import SequenceInput
from mmtrain.data.text import TextInput, texts_of
from mmtrain.data.text_target import TextTarget
from mmtrain.data.video import VideoInput
from mmtrain.errors import ConfigError

FIRST_ROWS = 1000  # that are looked at
_FILES = 100  # of which it is seen whether they are there
_CHARACTERS = 4_000_000  # that are tokenized to be counted: some seconds


def check_cells(
    name: str, part: InputKind | TargetKind, cells: Iterable[Any], *, column: str, where: str, folder: Path
) -> None:
    """Look at the first cells of a column that hold something.

    Args:
        name: of the input or target.
        part: how it reads them.
        cells: of the column, in order; files that lie in the table itself are not read beyond the first.
        column: its name.
        where: the table, for messages.
        folder: what relative paths start from.

    Raises:
        ConfigError: when the first is of no use, or none of the files that are named first is there.
    """
    filled = (cell for cell in islice(cells, FIRST_ROWS) if not is_empty(cell))
    first = next(filled, None)
    if first is None:
        return
    wrong = _what_it_is_not(part, first)
    if wrong is not None:
        what, mend = wrong
        raise ConfigError(
            f"{where}: the column {column} holds {_shown(first)}, which is no {what}\n"
            f"    {mend.format(name=name, column=column)}"
        )
    if isinstance(part, ImageInput | AudioInput | VideoInput | SequenceInput) and isinstance(content_of(first), str):
        _check_files(name, part.kind, [first, *islice(filled, _FILES - 1)], column, where, folder)


_FILE_KINDS: Mapping[str, str] = {
    "image": "pictures",
    "audio": "sounds",
    "video": "films",
    "sequence": "arrays",
}


def _what_it_is_not(part: InputKind | TargetKind, cell: Any) -> tuple[str, str] | None:
    """What a cell should be and is not, and the mend; None when it may be that."""
    content = content_of(cell)
    if isinstance(part, TextInput | TextTarget):
        texts = cell if isinstance(cell, list | tuple) else [cell]
        if any(isinstance(text, Mapping | bytes | list) for text in texts):
            return "text", "name the column of texts by data.columns.{name}"
    elif isinstance(part, ClassLabel):
        if isinstance(cell, list | tuple | Mapping | bytes):
            several = ", or learn several by task=multilabel data.columns.labels={column}"
            mend = "name a column with one class a row by data.columns.{name}"
            return "class", mend + (several if isinstance(cell, list | tuple) else "")
    elif isinstance(part, ImageInput | AudioInput | VideoInput):
        words = isinstance(part, ImageInput) and isinstance(content, list) and isinstance(content[0], str)
        if words or isinstance(content, int | float) or (isinstance(content, Mapping) and "array" not in content):
            one = {"image": "picture", "audio": "sound", "video": "film"}[part.kind]
            return one, f"name the column of {_FILE_KINDS[part.kind]}, or of paths to them, by data.columns.{{name}}"
    return None


def _shown(cell: Any) -> str:
    return f"{len(cell)} bytes" if isinstance(cell, bytes) else in_short(cell)


def _check_files(name: str, kind: str, cells: list[Any], column: str, where: str, folder: Path) -> None:
    paths = [content_of(cell) for cell in cells]
    # not Path.exists: it raises for a text that is too long to be a path
    if all(isinstance(path, str) and not os.path.exists(folder / path) for path in paths):  # noqa: PTH110
        count = f"none of the first {len(paths)} files is there" if len(paths) > 1 else "the only file is not there"
        raise ConfigError(
            f"{where}: of the column {column} {count}, such as {folder / paths[0]}\n"
            f"    mend the paths, which start from {folder}, or name the column of {_FILE_KINDS[kind]} by"
            f" data.columns.{name}"
        )


def cut_texts(key: str, reader: TextInput, cells: Iterable[Any], *, where: str, num_rows: int) -> Iterator[str]:
    """A note when some texts lose their ends.

    Args:
        key: of the configuration, that holds max_length.
        reader: with its tokenizer.
        cells: of the column, in order.
        where: the table.
        num_rows: that it has.
    """
    rows = list(_head(cells))
    counted = iter(reader.uncut().encode_batch([text for texts in rows for text in texts]))
    lengths = sorted(max((len(next(counted)) for _ in texts), default=0) for texts in rows)
    cut = sum(length > reader.max_length for length in lengths)
    if cut == 0:
        return
    most, longest = lengths[math.ceil(0.99 * len(lengths)) - 1], lengths[-1]
    nearly = f"{most} for 99 of 100 rows, or to " if reader.max_length < most < longest else ""
    yield (
        f"{where}: {cut:,} of {'the first ' if len(rows) < num_rows else ''}{len(rows):,} rows have a text that is"
        f" longer than {key}.max_length = {reader.max_length} tokens: its end is cut (the longest has {longest:,})\n"
        f"    set {key}.max_length to {nearly}{longest} for all"
    )


def _head(cells: Iterable[Any]) -> Iterator[list[str]]:
    """The texts of the first rows, of fewer rows when they are long."""
    room = _CHARACTERS
    for cell in islice(cells, FIRST_ROWS):
        texts = texts_of(cell)
        yield texts
        room -= sum(map(len, texts))
        if room < 0:
            return
