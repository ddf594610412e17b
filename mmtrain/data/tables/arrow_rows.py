"""Rows of Python as an Arrow file: a column keeps its type where all cells have one, and is JSON where they have not.

Types follow from all rows, not from the first ones. A column of words and lists, of words and numbers, or of objects
with different keys is kept as JSON, so that each cell comes back as it was: no word is read a second time.
"""

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from operator import eq, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mmtrain.data.tables.arrow_lines import read_lines

Batch = Mapping[str, Sequence[Any]]  # by column, its cells; all columns have one length


class Lines(NamedTuple):
    """Rows as lines of JSON.

    Attributes:
        lines: an object each.
        read: gives the same rows by column, read by Python.
    """

    lines: Sequence[bytes]
    read: Callable[[], Iterator[Batch]]


JSON = pa.json_()
_MOST_ROWS, _MOST_BYTES = 10_000, 1 << 23  # of a batch
_NUMBERS = (pa.int64(), pa.float64())


def write_rows(path: Path, batches: Callable[[], Iterable[Batch | Lines]]) -> None:
    """Write rows as an Arrow stream.

    Args:
        path: a part file, which its caller puts in place.
        batches: gives all rows, some at a time. It is called again when a later row changes the type of a column.
    """
    types: dict[str, pa.DataType] = {}
    with _without_collections():
        while not _write(path, batches(), types):
            pass


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from searching for cycles: rows have none, and the search takes half of the time of a conversion."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def batches_of(rows: Iterable[tuple[Mapping[str, Any], int]]) -> Iterator[Batch]:
    """Rows as columns, so many at a time that they are of use and do not fill the memory.

    Args:
        rows: each with its size in bytes; a missing key is null.
    """
    some: list[Mapping[str, Any]] = []
    size = 0
    for row, num_bytes in rows:
        some.append(row)
        size += num_bytes
        if len(some) == _MOST_ROWS or size > _MOST_BYTES:
            yield _as_columns(some)
            some, size = [], 0
    if some:
        yield _as_columns(some)


def _as_columns(rows: Sequence[Mapping[str, Any]]) -> Batch:
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row.get(name) for row in rows] for name in names}


def _write(path: Path, batches: Iterable[Batch | Lines], types: dict[str, pa.DataType]) -> bool:
    """Write the rows; False when a later row changed a type of `types`, so that the file is of no use."""
    writer, schema, is_complete = None, pa.schema([]), True
    with path.open("wb") as file:
        for arrays, num_rows in _arrays(batches, types):
            if writer is None:
                schema = pa.schema(list(types.items()))
                writer = pa.ipc.new_stream(file, schema)
            is_complete = is_complete and schema == pa.schema(list(types.items()))
            if is_complete:
                columns = [arrays[n] if n in arrays else pa.nulls(num_rows, types[n]) for n in types]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        (writer or pa.ipc.new_stream(file, schema)).close()
    return is_complete


def _arrays(
    batches: Iterable[Batch | Lines], types: dict[str, pa.DataType]
) -> Iterator[tuple[Mapping[str, pa.Array], int]]:
    """By column its cells, and how many rows there are."""
    for batch in batches:
        table = read_lines(batch.lines, types) if isinstance(batch, Lines) else None
        if table is not None:
            yield {name: table.column(name).combine_chunks() for name in table.column_names}, table.num_rows
            continue
        for columns in batch.read() if isinstance(batch, Lines) else [batch]:
            arrays = {name: _array(types, name, cells) for name, cells in columns.items()}
            yield arrays, len(next(iter(columns.values())))


def _array(types: dict[str, pa.DataType], name: str, cells: Sequence[Any]) -> pa.Array:
    """Cells of the type of their column, which is widened to hold them."""
    known = types.get(name, pa.null())
    tries = [] if known == JSON else [None] if "int" in str(known) else [known, None]  # Arrow makes 2 of 2.5
    for kind in tries:
        wanted = _merged(known, _inferred(cells)) if kind is None else kind
        if wanted is not None and _is_uniform(cells, wanted):
            try:
                array = pa.array(cells, wanted)
            except (pa.ArrowException, TypeError, OverflowError):  # another type, or an integer that is no exact float
                continue
            types[name] = wanted
            return array
    types[name] = JSON
    return _json_array(cells)


def _json_array(cells: Sequence[Any]) -> pa.Array:
    texts = [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in cells]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.string()))


def _inferred(cells: Sequence[Any]) -> pa.DataType | None:
    """The type that the first cells have; None when they have none in common."""
    try:
        return pa.infer_type(cells)
    except (pa.ArrowException, TypeError, OverflowError):
        return None


def _is_uniform(cells: Iterable[Any], kind: pa.DataType) -> bool:
    """Whether Arrow keeps the cells as they are: all objects of one place must have the same keys."""
    if pa.types.is_floating(kind):
        return bool not in set(map(type, cells))  # Arrow would make 1.0 of true
    if not pa.types.is_nested(kind):
        return True
    filled = [cell for cell in cells if cell is not None]
    if pa.types.is_list(kind):
        is_list = not set(map(type, filled)) - {list}
        return is_list and _is_uniform(chain.from_iterable(filled), kind.value_type)
    names = {field.name for field in kind}
    # loops of C: this runs for every turn of every dialogue
    if not names or set(map(type, filled)) - {dict} or not all(map(eq, map(dict.keys, filled), repeat(names))):
        return False
    return all(_is_uniform(map(itemgetter(f.name), filled), f.type) for f in kind)


def _merged(one: pa.DataType, other: pa.DataType | None) -> pa.DataType | None:
    """The type that holds the cells of both exactly; None when there is none."""
    if other is None or one == other or pa.types.is_null(other):
        return None if other is None else one
    if pa.types.is_null(one):
        return other
    if one in _NUMBERS and other in _NUMBERS:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = _merged(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: _merged(field.type, other.field(field.name).type) for field in one if _has(other, field)}
        is_same = len(fields) == one.num_fields == other.num_fields and None not in fields.values()
        return pa.struct(list(fields.items())) if is_same else None
    return None


def _has(kind: pa.StructType, field: pa.Field) -> bool:
    return kind.get_field_index(field.name) >= 0
