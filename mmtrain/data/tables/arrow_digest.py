"""A digest of a column of an Arrow table: of its values, however they are stored, and how its cells are looked up."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from mmtrain.data.tables.columns import is_empty

if TYPE_CHECKING:
    import pyarrow as pa

HEAD = 1024  # bytes of a medium that are compared
_ROWS_AT_ONCE = 1_000_000  # and bytes, of a table that was selected from another
_BYTES_AT_ONCE = 1 << 26
_LARGEST_WHOLE = 2.0**62  # a float below it that is an integer equals an int64


def digest_of(value: Any) -> str:
    """16 hexadecimal digits for a value of JSON."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


class ArrowDigest:
    """A digest of Arrow cells that come in pieces; where they are cut does not matter.

    Nested cells are taken apart: each list has its lengths, each field of a struct its own values. All lengths, and all
    values, of one place are a stream of bytes with a hash of its own.

    Args:
        prefixes: of paths, which are left out, so that it does not matter where a folder is.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = prefixes
        self._streams: dict[str, Any] = {}
        self._filled: set[str] = set()

    def hexdigest(self) -> str | None:
        """The digest; None where no cell has a value."""
        available = {name: hash.hexdigest() for name, hash in self._streams.items() if name in self._filled}
        return digest_of(available) if available else None

    def add(self, cells: "pa.Array", place: str = "") -> None:
        """Take some cells.

        Args:
            cells: of the column, or of a place inside its cells.
            place: where they are inside the cells, such as ".path" or "[]".
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = cells.type
        if isinstance(cells, pa.ExtensionArray):
            self.add(cells.storage, place)
        elif pa.types.is_dictionary(kind):
            self.add(cells.dictionary_decode(), place)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            self._add_texts(f"{place} text", _without(self._prefixes, cells))
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
            cells = cells.cast(pa.large_binary())
            self._add(f"{place} sizes", _numpy(pc.binary_length(cells), 0).astype("<i8"))
            self._add_texts(f"{place} heads", pc.binary_slice(cells, 0, HEAD))
        elif pa.types.is_boolean(kind):
            self._add(f"{place} booleans", 1 + _numpy(cells.cast(pa.int8()), -1))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._add_numbers(f"{place} numbers", cells)
        elif pa.types.is_struct(kind):
            self._add_fields(cells, place)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            self._add(f"{place} lengths", _numpy(pc.list_value_length(cells), 0).astype("<i8"))
            self.add(pc.list_flatten(cells), f"{place}[]")
        elif not pa.types.is_null(kind):  # times, decimals ...
            words = [None if cell is None else str(cell) for cell in cells.to_pylist()]
            self._add_texts(f"{place} others", pa.array(words, pa.large_string()))

    def _add_fields(self, cells: "pa.StructArray", place: str) -> None:
        """Each field; of the {"bytes", "path"} of `datasets` what is read, as if the cell were that (`content_of`)."""
        fields = dict(zip((field.name for field in cells.type), cells.flatten(), strict=True))
        if {"bytes", "path"} <= fields.keys():
            self.add(fields["bytes"], place)
            self.add(_path_where_no_bytes(fields), place)
            return
        for name, values in fields.items():
            self.add(values, f"{place}.{name}")

    def _add_texts(self, stream: str, cells: "pa.Array") -> None:
        """The lengths and the bytes; null is the same as empty."""
        import pyarrow as pa

        cells = cells.cast(pa.large_binary()).fill_null(b"")
        _, offsets, data = cells.buffers()
        ends = np.frombuffer(offsets, "<i8", count=len(cells) + 1, offset=8 * cells.offset) if len(cells) else [0, 0]
        self._add(f"{stream} lengths", np.diff(ends))
        if ends[-1] > ends[0]:
            self._add(stream, np.frombuffer(data, np.uint8)[ends[0] : ends[-1]])

    def _add_numbers(self, stream: str, cells: "pa.Array") -> None:
        """Null and NaN are the same, and so are 3 and 3.0 of any width."""
        import pyarrow as pa

        if pa.types.is_integer(cells.type):
            kinds = _numpy(cells.is_valid(), False).astype(np.uint8)
            values = _numpy(cells, 0).astype("<i8")
        else:
            floats = _numpy(cells.cast(pa.float64()), np.nan)
            present = ~np.isnan(floats)
            is_whole = present & (np.abs(floats) < _LARGEST_WHOLE) & (np.floor(floats) == floats)
            kinds = is_whole + 2 * (present & ~is_whole).astype(np.uint8)
            values = np.where(present, floats, 0.0).astype("<f8").view("<i8")
            values[is_whole] = floats[is_whole].astype("<i8")
        self._add(f"{stream} kinds", kinds)
        self._add(stream, values)

    def _add(self, stream: str, values: Any) -> None:
        self._streams.setdefault(stream, hashlib.blake2b(digest_size=8)).update(np.ascontiguousarray(values).data)
        if np.any(values):
            self._filled.add(stream)


def _numpy(cells: "pa.Array", null: Any) -> np.ndarray:
    """Cells as an array, with a value where they are null."""
    result: np.ndarray = cells.fill_null(null).to_numpy(zero_copy_only=False)
    return result


def _without(prefixes: Sequence[str], cells: "pa.Array") -> "pa.Array":
    """Paths from the folder on."""
    import pyarrow.compute as pc

    for prefix in prefixes:
        inside = pc.starts_with(cells, prefix)
        if inside.true_count:
            cells = pc.if_else(inside, pc.utf8_slice_codeunits(cells, len(prefix)), cells)
    return cells


def _path_where_no_bytes(fields: Mapping[str, "pa.Array"]) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = fields["path"]
    return pc.if_else(fields["bytes"].is_valid(), pa.scalar(None, paths.type), paths)


def paths_in(cells: "pa.Array") -> list[str]:
    """The texts in cells of paths, in lists too; a path next to bytes is only a name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [path for path in cells.to_pylist() if not is_empty(path)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return paths_in(pc.list_flatten(cells))
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    if {"bytes", "path"} <= set(names):
        return paths_in(_path_where_no_bytes(dict(zip(names, cells.flatten(), strict=True))))
    return []


@runtime_checkable
class OfDatasets(Protocol):
    """A `datasets.Dataset`.

    Attributes:
        data: its Arrow table.
        _indices: a table with the rows of `data` that it has, in order; None for all.
    """

    data: Any
    _indices: Any

    def __len__(self) -> int: ...


def cell_size(table: OfDatasets, column: str) -> float:
    """How many bytes a cell has, on average."""
    cells = table.data.column(column)
    return float(cells.nbytes / max(1, len(cells)))


def cells_at(table: OfDatasets, column: str, rows: Sequence[int]) -> Iterator["pa.Array"]:
    """The cells of these rows, each alone: nothing is copied, so that large cells are not read."""
    cells = table.data.column(column)
    for row in rows:
        place = row if table._indices is None else table._indices.column(0)[row].as_py()
        yield from cells.slice(place, 1).chunks


def all_cells(table: OfDatasets, column: str) -> Iterator["pa.Array"]:
    """All cells, some at a time."""
    cells = table.data.column(column)
    if table._indices is None:
        yield from cells.chunks
        return
    at_once = max(1, min(_ROWS_AT_ONCE, int(_BYTES_AT_ONCE / max(1.0, cell_size(table, column)))))
    places = table._indices.column(0)
    for first in range(0, len(table), at_once):
        yield from _gathered(cells, places.slice(first, at_once).to_numpy())


def _gathered(cells: "pa.ChunkedArray", places: np.ndarray) -> list["pa.Array"]:
    """The cells at some places. Unlike `ChunkedArray.take`, it never copies all cells first, which that does if nested.

    Args:
        cells: of a column.
        places: (N,), in any order.
    """
    import pyarrow as pa

    ends = np.cumsum([len(chunk) for chunk in cells.chunks])
    numbers = np.searchsorted(ends, places, side="right")
    order = np.argsort(numbers, kind="stable")
    chunks, firsts = np.unique(numbers[order], return_index=True)
    taken = [
        cells.chunk(number).take(pa.array(places[own].astype(np.int64) - (ends[number] - len(cells.chunk(number)))))
        for number, own in zip(chunks.tolist(), np.split(order, firsts[1:]), strict=True)
    ]
    return taken if (np.diff(order) == 1).all() else [pa.concat_arrays(taken).take(pa.array(np.argsort(order)))]
