"""A number for each row by which similar rows are batched: its length, or the value of a column.

Images, sounds and videos are not decoded for this: the length is read from the header of a file. A row whose length is
not known counts as empty. Its error is reported when it is read.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmtrain.data.decoding.media import probe, source_of
from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.inputs.sequence import SequenceInput
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.protocols import InputKind
from mmtrain.data.sampling.buckets import Buckets
from mmtrain.data.tables.columns import Column, content_of, is_empty
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.tables import cells_of
from mmtrain.data.tables.texts import valid_texts
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing

_TEXTS_AT_ONCE = 10_000


def row_lengths(
    buckets: Buckets,
    table: Any,
    *,
    columns: Mapping[str, Column],
    inputs: Mapping[str, InputKind],
    folder: Path,
    cache: Path,
) -> tuple[np.ndarray, bool]:
    """Return the number of `buckets.by` for each row, and whether it is the index of a word.

    Args:
        buckets: how batches are made.
        table: training table.
        columns: columns by input.
        inputs: inputs by modality, with their vocabularies.
        folder: base of relative paths.
        cache: folder that stores the lengths for other processes and later starts.

    Returns:
        (rows,), int64: tokens of a text (the longest of several), samples of a sound, frames of a video or sequence, as
        the model gets them; the value of a numeric column, or the index of the value of a column of words. 0 for an
        empty cell. And whether the numbers are indices of words.

    Raises:
        ConfigError: if there is no such input or column, or it has no length.
    """
    by = buckets.by
    assert by is not None, "called only with buckets.by"
    if by in inputs and by in columns:
        column = columns[by]
        if not isinstance(column, str) or inputs[by].kind in ("image", "vector"):
            raise ConfigError(
                f"data.bucket.by = {by}: every {inputs[by].kind} has the same size\n"
                f"    fix: name an input with a length, a column of {', '.join(table.column_names)}, or null"
            )
        reader = inputs[by]
        knobs = {key: knob for key, knob in vars(reader).items() if isinstance(knob, int | float | str)}
        kept = cache / f".lengths_{_digest(table._fingerprint, column, knobs)}.npy"
        known = _kept(kept, len(table))
        if known is None:
            lengths = _measured(reader, _whole(table, column, by), folder)
            known = np.fromiter(lengths, dtype=np.int64, count=len(table))
            with replacing(kept) as part, part.open("wb") as file:
                np.save(file, known)
        return known, False
    if by in table.column_names:
        return _of_column(buckets, _whole(table, by, by))
    names = list(dict.fromkeys([*(m for m in inputs if m in columns), *table.column_names]))
    near = difflib.get_close_matches(by, names, n=1)
    raise ConfigError(
        f"data.bucket.by = {by} is neither an input nor a column of the training split; there are {', '.join(names)}\n"
        f"    fix: set data.bucket.by to {near[0] if near else 'one of them, or to null'}"
    )


def _whole(table: Any, column: str, by: str) -> list[Any]:
    """Every cell of a column. Of shards, only a sample is available."""
    cells = list(cells_of(table, column))
    if len(cells) != len(table):
        raise ConfigError(
            f"data.bucket.by = {by} needs that column of every row, but of shards only {len(cells)} of {len(table)} are"
            " read in advance\n    fix: set data.bucket.by to null"
        )
    return cells


def _of_column(buckets: Buckets, cells: list[Any]) -> tuple[np.ndarray, bool]:
    filled = [cell for cell in cells if not is_empty(cell)]
    if filled and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in filled):
        return np.array([0 if is_empty(cell) else max(0, round(cell)) for cell in cells], dtype=np.int64), False
    if buckets.max_tokens is not None:
        raise ConfigError(
            f"data.bucket.max_tokens = {buckets.max_tokens}, but the column {buckets.by} has no lengths\n"
            "    fix: set data.bucket.max_tokens to null, or data.bucket.by to an input with a length"
        )
    names = {value: number for number, value in enumerate(sorted({str(cell) for cell in filled}), start=1)}
    return np.array([0 if is_empty(cell) else names[str(cell)] for cell in cells], dtype=np.int64), True


def _measured(reader: InputKind, cells: Iterable[Any], folder: Path) -> Iterable[int]:
    if isinstance(reader, TextInput):
        return _of_texts(reader, cells)
    return (0 if is_empty(cell) else _of_medium(reader, cell, folder) for cell in cells)


def _of_texts(reader: TextInput, cells: Iterable[Any]) -> Iterable[int]:
    """The largest number of tokens of a cell's texts, truncated as in the input."""
    waiting: list[list[str]] = []

    def counted() -> Iterable[int]:
        encoded = iter(reader.tokenizer.encode_batch([text for texts in waiting for text in texts]))
        return [max((len(next(encoded)) for _ in texts), default=0) for texts in waiting]

    for cell in cells:
        waiting.append(read_or([], cell, valid_texts))
        if len(waiting) == _TEXTS_AT_ONCE:
            yield from counted()
            waiting.clear()
    yield from counted()


def _of_medium(reader: InputKind, cell: Any, folder: Path) -> int:
    return read_or(0, cell, lambda cell: _length(reader, cell, folder))


def _length(reader: InputKind, cell: Any, folder: Path) -> int:
    content = content_of(cell)
    if isinstance(reader, AudioInput) and isinstance(content, str | bytes):
        seconds = probe(source_of(content, folder)).seconds
        return round(min(seconds, reader.max_seconds) * reader.sample_rate)
    if isinstance(reader, VideoInput) and isinstance(content, str | bytes):
        return min(probe(source_of(content, folder), max_pixels=reader.max_pixels).frames, reader.num_frames)
    loaded = reader.load(cell, folder, seed=0, train=False)
    if loaded is None:
        return 0
    assert isinstance(reader, AudioInput | VideoInput | SequenceInput), "images and vectors have one size"
    return len(loaded[0])


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _kept(path: Path, num_rows: int) -> np.ndarray | None:
    """Lengths that an earlier process has measured; None if there are none, or they are damaged."""
    if not path.is_file():
        return None
    try:
        lengths = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    assert isinstance(lengths, np.ndarray)
    return lengths if lengths.shape == (num_rows,) and lengths.dtype == np.int64 else None
