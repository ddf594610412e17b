"""What a source of data gives: a table a split, and what the paths in them start from; and how tables are read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmtrain.data.order import Order
from mmtrain.data.tables.columns import Column, cell_of
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.data.tables.texts import are_texts
from mmtrain.errors import ConfigError, SampleError

SPLITS = ("train", "val", "test")
ALIASES = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
# A row of a `datasets.Dataset` takes up to twenty times as long alone as among others; but one can be a whole film, of
# which a worker must not hold many.
_ROWS_AT_ONCE = 16
_CELLS_AT_ONCE = 1000
_LOOKED_AT = 100  # cells of a binary column, to see whether they are texts
_BYTES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Tables:
    """The tables of a data set.

    Attributes:
        splits: by train, val and test, a `datasets.Dataset`, or a table with: `len(table)`, `table[3]` as a
            dict, `table["column"]` as an iterable of cells, `column_names`, `_fingerprint`. Rows and columns are best
            read by `rows_at` and `cells_of`.
        names: by split, the file or folder that it came from, for messages.
        folder: what relative paths start from, and must stay in; see `data_folder`.
        order: of the training split; None for a permutation of all its rows.
        notes: what a person should know of the folder.
        files: what the tables were read from that must not lead out of a folder, each with that folder.
        folders: by split, what its relative paths start from where that is not `folder`.
    """

    splits: Mapping[str, Any]
    names: Mapping[str, str]
    folder: Path
    order: Order | None = None
    notes: Sequence[str] = ()
    files: Sequence[tuple[Path, Path]] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)

    def folder_of(self, split: str) -> Path:
        """What the relative paths of a split start from, and must stay in."""
        return self.folders.get(split, self.folder)


@runtime_checkable
class SupportsGather(Protocol):
    """A table that reads several rows at once."""

    def __getitems__(self, rows: list[int]) -> Sequence[Mapping[str, Any]]:
        """The rows of these numbers."""
        ...


@runtime_checkable
class SupportsColumns(Protocol):
    """A table that reads many cells of a column at once, as a `datasets.Dataset` does.

    Attributes:
        data: an Arrow table, of these rows or more.
    """

    data: Any

    def select_columns(self, column_names: list[str]) -> "SupportsColumns":
        """The table with these columns alone."""
        ...

    def iter(self, batch_size: int) -> Iterable[Mapping[str, Sequence[Any]]]:
        """So many rows after the other, as the cells of each column."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: slice) -> Mapping[str, Sequence[Any]]:
        """Some rows, as the cells of each column."""
        ...


class UnreadableRow(Mapping[str, Any]):
    """A row that its table cannot give, such as one with a text that is not UTF-8. Asking for any cell raises.

    Args:
        error: what is raised.
    """

    def __init__(self, error: SampleError) -> None:
        self._error = error

    def __getitem__(self, column: str) -> Any:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        raise self._error

    def __len__(self) -> int:
        raise self._error


def rows_at(table: Any, rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """The rows of these numbers, looked up together where the table can, but not so many as to fill the memory.

    A row that the table cannot give is an `UnreadableRow`.
    """
    if not isinstance(table, SupportsGather):
        yield from (row_at(table, row) for row in rows)
        return
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = list(rows[first : first + _ROWS_AT_ONCE])
        try:
            with sample_errors("rows"):
                results = table.__getitems__(some)
        except SampleError:  # one of them is the cause
            results = [row_at(table, row) for row in some]
        yield from results


def row_at(table: Any, row: int) -> Mapping[str, Any]:
    """The row of a number, an `UnreadableRow` where the table cannot give it."""
    try:
        with sample_errors(f"row {row}"):
            result: Mapping[str, Any] = table[row]
    except SampleError as error:
        return UnreadableRow(error)
    return result


def readable_cell(cells: Mapping[str, Any], column: Column | None) -> Any:
    """As `cell_of`; None for an unreadable cell, which is reported when the sample is loaded."""
    try:
        return cell_of(cells, column)
    except SampleError:
        return None


def cells_of(table: Any, column: Column) -> Iterator[Any]:
    """The cells of a column, or of several as a list a row; read together where the table can, as `rows_at` does.

    Of some tables (shards.py) it is a sample of the rows. A cell that cannot be read is None.
    """
    if not isinstance(column, str):
        yield from (list(cells) for cells in zip(*(cells_of(table, part) for part in column), strict=True))
    elif not isinstance(table, SupportsColumns):
        yield from table[column]
    else:
        arrow = table.data.column(column)
        fitting = _BYTES_AT_ONCE * len(arrow) // max(1, arrow.nbytes)
        yield from _cells_of(table.select_columns([column]), column, min(max(1, fitting), _CELLS_AT_ONCE))


def _cells_of(table: SupportsColumns, column: str, at_once: int) -> Iterator[Any]:
    """The cells of the only column of a table."""
    batches = iter(table.iter(at_once))
    for first in range(0, len(table), at_once):
        last = min(first + at_once, len(table))
        try:
            with sample_errors(column):
                cells = next(batches)[column]
        except SampleError:  # one of them is the cause, and the iterator has ended
            cells = [readable_cell(row_at(table, row), column) for row in range(first, last)]
            batches = (table[start : start + at_once] for start in range(last, len(table), at_once))
        yield from cells


def split_name(word: str) -> str | None:
    """The split that a word means; None when it means none.

    >>> split_name("Validation"), split_name("train"), split_name("extra")
    ('val', 'train', None)
    """
    word = word.strip().lower()
    word = ALIASES.get(word, word)
    return word if word in SPLITS else None


def undecoded(table: Any) -> Any:
    """A `datasets.Dataset` whose pictures, sounds and films are left as files, and whose classes have their names.

    We decode ourselves: one broken file must not be the end of a run. Columns of bytes that are texts become texts.
    """
    for name in [name for name, feature in table.features.items() if _is_binary(feature)]:
        table = _as_texts(table, name)
    for name, feature in table.features.items():
        left = _undecoded(feature)
        if left != feature:
            table = table.cast_column(name, left)
        if _has_classes(left):
            table = _with_names(table, name)
    return table


def _is_binary(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Value) and "binary" in feature.dtype


def _as_texts(table: Any, column: str) -> Any:
    """The table with a column of bytes as texts, if its first cells are texts and all are UTF-8."""
    import datasets
    import pyarrow as pa

    arrow = table.data.column(column)
    first: list[bytes] = []
    for chunk in arrow.chunks:
        if len(first) == _LOOKED_AT:
            break
        first += [cell for cell in chunk[:_LOOKED_AT].to_pylist() if cell is not None][: _LOOKED_AT - len(first)]
    if not are_texts(first):
        return table
    try:
        return table.cast_column(column, datasets.Value("large_string" if "large" in str(arrow.type) else "string"))
    except pa.ArrowException:  # a later cell is no text, which is reported when the column is read
        return table


def _inner(feature: Any, change: Callable[[Any], Any]) -> Any:
    """A feature of lists or dicts with other parts; a feature without parts itself."""
    import datasets

    if isinstance(feature, dict):
        return {name: change(part) for name, part in feature.items()}
    if isinstance(feature, list):
        return [change(part) for part in feature]
    if isinstance(feature, datasets.List | datasets.LargeList):
        return replace(feature, feature=change(feature.feature))
    return feature


def _undecoded(feature: Any) -> Any:
    """A feature whose files, also those in lists and dicts, `datasets` does not open: it would follow any path."""
    import datasets
    import pyarrow as pa

    from mmtrain.data.tables.json_cells import JsonCells

    if isinstance(feature, datasets.Json):
        return JsonCells()
    if (
        is_dataclass(feature)
        and not isinstance(feature, type)
        and any(part.name == "decode" for part in fields(feature))
    ):
        # not JSON, which names no file
        is_file = pa.types.is_struct(feature.pa_type)  # type: ignore[attr-defined]  # every feature has one
        return replace(feature, decode=False) if is_file else feature
    return _inner(feature, _undecoded)


def _has_classes(feature: Any) -> bool:
    return _named(feature) != feature


def _named(feature: Any) -> Any:
    """A feature with texts in place of classes."""
    import datasets

    return datasets.Value("string") if isinstance(feature, datasets.ClassLabel) else _inner(feature, _named)


def _name_of_class(feature: Any, cell: Any) -> Any:
    """A cell with the names of its classes; a number that is none, such as -1, is a gap."""
    import datasets

    if cell is None or isinstance(feature, datasets.ClassLabel):
        return feature.names[cell] if cell is not None and 0 <= cell < len(feature.names) else None
    if isinstance(feature, dict):
        return {name: _name_of_class(part, cell[name]) for name, part in feature.items()}
    if isinstance(feature, list):
        return [_name_of_class(feature[0], part) for part in cell]
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [_name_of_class(feature.feature, part) for part in cell]
    return cell


def _with_names(table: Any, column: str) -> Any:
    def name_them(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {column: [_name_of_class(feature, cell) for cell in batch[column]]}

    feature = table.features[column]
    features = table.features.copy()
    features[column] = _named(feature)
    return table.map(name_them, batched=True, features=features)


def no_rows(name: str, split: str) -> ConfigError:
    """The message for an empty split."""
    what = f": the {split} split is empty" if split in SPLITS else ""
    return ConfigError(f"{name} has no rows{what}\n    fill it, or remove the file")
