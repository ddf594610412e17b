"""What the classes of training say of their column."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmtrain.data.label import ClassLabel, name_of
from mmtrain.errors import ConfigError

MANY = 100  # classes, below which each may well have one row alone
NEARLY_ALL = 0.9
FEW = 10  # numbers that may well be grades


def check_classes(
    name: str, target: ClassLabel, *, column: str, where: str, others: Mapping[str, Iterable[Any]]
) -> str | None:
    """Whether there is something to tell apart, and something to learn it from.

    Args:
        name: of the target.
        target: that has learned its classes.
        column: where they stand.
        where: the training table, for messages.
        others: by the name of every other table, its cells; read only when nearly every row has a class of its own.

    Returns:
        A note, when nearly every row has a class of its own and no other table tells whether that is meant.

    Raises:
        ConfigError: for one class alone, for measurements, and when nearly every row has its own and no other table has
            any of them.
    """
    names, rows = target.known.names, sum(target.known.counts)
    if len(names) == 1:
        raise ConfigError(
            f"{where}: the column {column} holds one class alone, {names[0]!r}, in {rows:,}"
            f" {'row' if rows == 1 else 'rows'}\n"
            f"    name another column by data.columns.{name}, add rows of another class, or leave the task out"
        )
    if len(names) > FEW and len(names) > rows / 2 and all(re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", n) for n in names):
        raise ConfigError(
            f"{where}: the column {column} holds {len(names):,} different numbers in {rows:,} rows: measurements, not"
            f" classes\n    learn them by task=[regression] data.columns.number={column}, or name the column of"
            f" classes by data.columns.{name}"
        )
    if len(names) < MANY or len(names) < NEARLY_ALL * rows:
        return None
    what = f"{where}: the column {column} has {len(names):,} classes in {rows:,} rows"
    known = set(names)
    if any(name_of(cell) in known for cells in others.values() for cell in cells):
        return None  # one example of each, to be told apart in other rows: that can be meant
    mend = f"name the column of classes by data.columns.{name}"
    if not others:
        return f"{what}: there is nearly nothing to learn a class from\n    if that is not meant, {mend}"
    raise ConfigError(f"{what}, and none of them in {' or '.join(others)}\n    {mend}, or leave the task out")
