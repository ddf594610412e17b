"""How columns are used: two of one meaning, a target among the inputs, and those that nothing reads."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mmtrain.data.tables.columns import USUAL_NAMES, Column, is_empty, name_of, typed
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.tables import cells_of

_LOOKED_AT = 1000  # rows
_SAME = 0.9  # of them
_OF_ROWS = ("id", "split", "subset", "partition", "fold")


def notes_of_columns(
    table: Any,
    columns: Mapping[str, Column],
    wanted: Mapping[str, Column | None],
    *,
    inputs: Sequence[str],
    targets: Sequence[str],
    where: str,
) -> Iterator[str]:
    """What a person should know before training.

    Args:
        table: of training.
        columns: by input and target.
        wanted: the column that the user named, by input and target; None if it was found by its usual names.
        inputs: that are read.
        targets: that are learned, without those that are sentences: they can be an input of another task.
        where: the table, for messages.
    """
    read = {part for column in columns.values() for part in _parts(column)}
    for name in [name for name in (*inputs, *targets) if wanted.get(name) is None]:
        column = columns[name]
        others = [c for c in USUAL_NAMES.get(name, ()) if c in table.column_names and c not in read]
        if others and isinstance(column, str):
            yield (
                f"{where}: the column {column} is read as {name}, and {', '.join(others)} is not read\n"
                f"    if it is meant: {typed({name: others[0]})}"
            )
    for target in targets:
        for name in inputs:
            yield from _explained(table, columns, name, target, where)


def columns_not_read(table: Any, columns: Mapping[str, Column]) -> list[str]:
    """The columns that neither an input nor a target reads."""
    read = {part for column in columns.values() for part in _parts(column)}
    return [column for column in table.column_names if column not in read and column.lower() not in _OF_ROWS]


def _explained(table: Any, columns: Mapping[str, Column], name: str, target: str, where: str) -> Iterator[str]:
    """A target that is in an input, or is the same in nearly every row."""
    same = [part for part in _parts(columns[name]) if part in _parts(columns[target])]
    if same:
        yield (
            f"WARNING {where}: the column {', '.join(same)} is the target {target} and is in the input {name}:"
            f" the model is told what it must predict\n    fix: take it out of data.columns.{name}"
        )
        return
    pairs = zip(cells_of(table, columns[name]), cells_of(table, columns[target]), strict=False)
    filled = [pair for pair in islice(pairs, _LOOKED_AT) if not any(map(is_empty, pair))]
    num_same = sum(_is_same(*pair) for pair in filled)
    if len(filled) > 1 and num_same >= _SAME * len(filled) and len({str(cell) for _, cell in filled}) > 1:
        yield (
            f"WARNING {where}: the input {name} is the target {target} in {num_same} of {len(filled)} rows:"
            f" the model is told what it must predict\n    fix: name another column by data.columns.{name}"
        )


def _is_same(cell: Any, target: Any) -> bool:
    texts = [read_or(None, one, name_of) for one in (cell, target) if isinstance(one, str | int | float)]
    return (
        len(texts) == 2 and texts[0] is not None and texts[1] is not None and texts[0].casefold() == texts[1].casefold()
    )


def _parts(column: Column) -> list[str]:
    return [column] if isinstance(column, str) else column
