"""Some rows of a split, such as those of one group, as a split."""

from collections.abc import Mapping, Sequence

from torch.utils.data import Dataset

from mmtrain.data.dataset import EvalSplit, Position
from mmtrain.data.tables.columns import name_of
from mmtrain.data.tables.tables import readable_cell, rows_at
from mmtrain.errors import ConfigError
from mmtrain.types import Sample

MOST_GROUPS = 100
NOTHING = "(none)"  # the group of rows without a value


class Subset(Dataset[Sample]):
    """The samples at some positions, with their own row indices.

    Args:
        split: the complete split.
        positions: the chosen positions, in order.
    """

    def __init__(self, split: EvalSplit, positions: Sequence[int]) -> None:
        self.split = split
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, at: Position) -> Sample:
        return self.__getitems__([at])[0]

    def __getitems__(self, step: Sequence[Position]) -> list[Sample]:
        """Samples of the complete split at these indices of the chosen positions."""
        return self.split.__getitems__([(e, p if p < 0 else self.positions[p]) for e, p in step])


def groups_of(split: EvalSplit, column: str, *, where: str) -> Mapping[str, list[int]]:
    """Positions of the rows by value of a column, with values in alphabetical order.

    Args:
        split: a split whose table has the column.
        column: a column of words or numbers.
        where: the table, for messages.

    Raises:
        ConfigError: if there is no such column, or it has too many values.
    """
    table = split.table
    if column not in table.column_names:
        raise ConfigError(
            f"test.group_by={column}: {where} has the columns {', '.join(table.column_names)}\n    fix: name one of"
            f" them"
        )
    names = [name_of(readable_cell(cells, column)) or NOTHING for cells in rows_at(table, range(len(table)))]
    groups: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    if len(groups) > MOST_GROUPS:
        raise ConfigError(
            f"test.group_by={column}: {len(groups)} values\n    fix: name a column of at most {MOST_GROUPS}"
        )
    for position, name in enumerate(names):
        groups[name].append(position)
    for position, (row, _, _) in enumerate(split.further, start=len(table)):
        groups[names[row]].append(position)
    return groups
