"""What the classes of training say of their column. Nothing heavy is imported."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.tables.columns import name_of
from mmtrain.data.tables.scale import in_short
from mmtrain.errors import ConfigError

MANY = 100  # classes, below which each may well have one row alone
NEARLY_ALL = 0.9
FEW = 10  # numbers that may well be grades


def check_classes(
    name: str,
    names: Sequence[str],
    rows: int,
    *,
    column: str,
    where: str,
    others: Mapping[str, Iterable[Any]],
    without: str | None,
) -> str | None:
    """Whether there is something to tell apart, and something to learn it from.

    Args:
        name: of the target.
        names: of the classes of training.
        rows: that have one.
        column: that contains them.
        where: the training table, for messages.
        others: by the name of every other table, its cells; read only when nearly every row has a class of its own.
        without: what to type to do without the target.

    Returns:
        A note, when nearly every row has a class of its own and no other table tells whether that is meant.

    Raises:
        ConfigError: for one class alone, for measurements, and when nearly every row has its own and no other table has
            any of them.
    """
    leave = f", or leave out what learns it: {without}" if without else ""
    if len(names) == 1:
        in_folders = Path(where).is_dir()
        what = f"holds one class alone, {in_short(names[0])!r}, in {rows:,} {'row' if rows == 1 else 'rows'}"
        fix = f"name another column by data.columns.{name}, add rows of another class"
        fix = f"put the files of each class into a folder of their own, {where}/CLASS" if in_folders else fix
        raise ConfigError(f"{where}: the column {column} {what}\n    {fix}{leave}")
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
        return None  # one example of each class can be intended
    fix = f"name the column of classes by data.columns.{name}"
    if not others:
        return f"{what}: there is nearly nothing to learn a class from\n    if that is not meant, {fix}"
    raise ConfigError(f"{what}, and none of them in {' or '.join(others)}\n    {fix}{leave}")
