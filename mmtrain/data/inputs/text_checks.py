"""Texts that are longer than max_length."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mmtrain.data.inputs.text import TextInput
from mmtrain.data.tables.cell_checks import FIRST_ROWS
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.texts import valid_texts

_CHARACTERS = 4_000_000  # maximum number that is tokenized for counting, which takes seconds


def cut_texts(key: str, reader: TextInput, cells: Iterable[Any], *, where: str, num_rows: int) -> Iterator[str]:
    """A note if some texts are truncated.

    Args:
        key: key of the configuration above max_length.
        reader: with its tokenizer.
        cells: cells of the column, in order.
        where: name of the table.
        num_rows: number of rows of the table.
    """
    rows = list(_head(read_each(cells, valid_texts)))
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
        f"    set {key}.max_length to {nearly}{longest} for all, if the encoder has so many positions"
    )


def _head(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """The texts of the first rows; fewer rows if the texts are long."""
    room = _CHARACTERS
    for texts in islice(rows, FIRST_ROWS):
        yield texts
        room -= sum(map(len, texts))
        if room < 0:
            return
