"""Lengths or sizes of the contents of cells, read from the headers of their files where possible."""

import copy
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.decoding.media import probe, source_of
from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.inputs.image import ImageInput, one_of
from mmtrain.data.inputs.sequence import SequenceInput
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.protocols import InputKind
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.sample_errors import describe_content, read_each, read_or
from mmtrain.data.tables.texts import valid_texts
from mmtrain.errors import SampleError


class Lengths(NamedTuple):
    """The lengths of a column.

    Attributes:
        unit: what is counted.
        low: the smallest.
        median: the middle one.
        high: the largest.
        num: number of measured contents.
        note: for the user; "" for none.
    """

    unit: str
    low: str
    median: str
    high: str
    num: int
    note: str


class MeasuredLengths(NamedTuple):
    """Lengths of an input, and the rows without a length, because their content cannot be read."""

    lengths: list[Lengths]
    unread: list[int]


def measure_lengths(reader: InputKind, cells: Sequence[tuple[int, Any]], folder: Path) -> MeasuredLengths:
    """Measure the cells of an input.

    Args:
        reader: of the input.
        cells: the row and its cell, none of them empty.
        folder: of relative paths.
    """
    if isinstance(reader, TextInput):
        read = read_each((cell for _, cell in cells), valid_texts)
        return MeasuredLengths(_of_texts(reader, [text for texts in read for text in texts]), [])
    results: list[tuple[float, ...]] = []
    unread: list[int] = []
    for row, cell in cells:
        measures = read_or(None, cell, lambda cell: _measure(reader, cell, folder))
        if measures is None:
            unread.append(row)
        else:
            results.append(measures)
    return MeasuredLengths(_described(reader, [f for f in results if f]) if any(results) else [], unread)


def summarize_lengths(unit: str, values: Iterable[float], form: str, note: str = "") -> Lengths:
    """Smallest, median and largest of numbers.

    >>> summarize_lengths("frames", [1, 2, 9], ",.0f")
    Lengths(unit='frames', low='1', median='2', high='9', num=3, note='')
    """
    numbers = sorted(values)
    low, middle, high = (format(n, form) for n in (numbers[0], statistics.median(numbers), numbers[-1]))
    return Lengths(unit, low, middle, high, len(numbers), note)


def _of_texts(reader: TextInput, texts: list[str]) -> list[Lengths]:
    if not texts:
        return []
    tokenizer = reader.uncut()
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    unknown = None if reader.unknown is None else tokenizer.token_to_id(reader.unknown)
    marks = tokenizer.num_special_tokens_to_add(False)
    cut = sum(len(ids) > reader.max_length for ids in encoded)
    notes = [f"{cut:,} of {len(texts):,} are cut to max_length = {reader.max_length}"] if cut else []
    share = sum(one == unknown for ids in encoded for one in ids) / max(1, sum(len(ids) - marks for ids in encoded))
    notes += [f"{share:.1%} of the tokens are unknown"] if share > 0 else []
    return [summarize_lengths("tokens", map(len, encoded), ",.0f", "; ".join(notes))]


def _measure(reader: InputKind, cell: Any, folder: Path) -> tuple[float, ...]:
    """(width, height) of an image, (seconds,) of audio, (frames, seconds) of a video, (frames,) of a sequence."""
    content = content_of(cell)
    if isinstance(reader, ImageInput):
        return _size(reader, content_of(one_of(cell)), folder)
    if isinstance(reader, AudioInput) and not isinstance(content, str | bytes):
        unlimited = copy.copy(reader)
        unlimited.max_seconds = 1e9
        loaded = unlimited.load(content, folder, seed=0, train=False)
        return () if loaded is None else (len(loaded[0]) / reader.sample_rate,)
    if isinstance(reader, AudioInput):
        result = probe(source_of(content, folder))
        return (result.seconds,) if result.has_audio else ()
    if isinstance(reader, VideoInput):
        if isinstance(content, list | tuple):
            return (len(content),)
        result = probe(source_of(content, folder), max_pixels=reader.max_pixels)
        return (result.frames, result.seconds) if result.frames else ()
    if isinstance(reader, SequenceInput):
        whole_sequence = copy.copy(reader)
        whole_sequence.max_length = 1 << 62
        loaded = whole_sequence.load(cell, folder, seed=0, train=False)
        return () if loaded is None else (len(loaded[0]),)
    return ()


def _size(reader: ImageInput, content: Any, folder: Path) -> tuple[int, int]:
    if isinstance(content, Image.Image):
        return content.size
    if not isinstance(content, str | bytes):
        return reader.open(content, folder).size
    try:
        with open_image(content if isinstance(content, bytes) else checked_path(folder, content)) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(describe_content(content), str(error)) from error


def _described(reader: InputKind, sizes_of_cells: list[tuple[float, ...]]) -> list[Lengths]:
    first = [numbers[0] for numbers in sizes_of_cells]
    if isinstance(reader, ImageInput):
        sizes = sorted(((int(w), int(h)) for w, h in sizes_of_cells), key=lambda size: (size[0] * size[1], size))
        low, middle, high = (f"{w} x {h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
        small = sum(min(size) < reader.size for size in sizes)
        note = f"{small:,} of {len(sizes):,} are smaller than size = {reader.size}" if small else ""
        return [Lengths("pixels", low, middle, high, len(sizes), note)]
    if isinstance(reader, AudioInput):
        return [summarize_lengths("seconds", first, ",.2f", _longer(first, reader.max_seconds, "max_seconds"))]
    if isinstance(reader, VideoInput):
        fewer = sum(num < reader.num_frames for num in first)
        note = f"{fewer:,} of {len(first):,} have fewer than num_frames = {reader.num_frames}" if fewer else ""
        seconds = [numbers[1] for numbers in sizes_of_cells if len(numbers) > 1]
        return [
            summarize_lengths("frames", first, ",.0f", note),
            *([summarize_lengths("seconds", seconds, ",.2f")] if seconds else []),
        ]
    assert isinstance(reader, SequenceInput), "nothing else is measured"
    return [summarize_lengths("frames", first, ",.0f", _longer(first, reader.max_length, "max_length"))]


def _longer(lengths: list[float], most: float, name: str) -> str:
    cut = sum(length > most for length in lengths)
    return f"{cut:,} of {len(lengths):,} are cut to {name} = {most:g}" if cut else ""
