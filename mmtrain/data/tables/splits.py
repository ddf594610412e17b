"""One table cut into train, val and test: by a column that says so, or by fractions."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from mmtrain.annotations import Fraction
from mmtrain.data.order import mix, permute
from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.scale import in_short
from mmtrain.data.tables.tables import SPLITS, cells_of, split_name
from mmtrain.errors import ConfigError

USUAL_COLUMNS = ("split", "subset", "partition", "fold")
_SALT = 0x5B117  # the same cut for every seed of training


class Cuts(Protocol):
    """Splits a lone table."""

    def cut(self, table: Any, name: str) -> dict[str, Any]:
        """By split, its rows."""
        ...

    def cut_training(self, table: Any, name: str) -> dict[str, Any]:
        """As `cut`, of a table that is named as that for training and has no other next to it."""
        ...

    def note(self, table: Any, splits: Mapping[str, Any], name: str) -> str | None:
        """What a person should know of the cut, if anything."""
        ...


class Split:
    """How a lone table is cut.

    Args:
        column: the column that says train, val or test; None to look for one named so, and cut by fractions where there
            is none.
        fractions: of the rows, by split; together 1. A fraction of 0 leaves the split out.
        group: the column whose values no split cuts through, such as a patient or a film.

    Raises:
        ValueError: if the fractions are negative or do not sum to 1.
    """

    def __init__(self, *, column: str | None, fractions: Mapping[str, Fraction], group: str | None) -> None:
        for name, share in fractions.items():
            if name not in SPLITS:
                raise ValueError(f"split.fractions.{name} is not one of {', '.join(SPLITS)}")
            if not share >= 0:
                raise ValueError(f"split.fractions.{name} = {share}; set it to 0 or more")
        if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
            shares = " + ".join(f"{share:g}" for share in fractions.values())
            raise ValueError(
                f"split.fractions: {shares or 'nothing'} is not 1; set {{train: 0.8, val: 0.1, test: 0.1}}"
            )
        self.column = column
        self.fractions = {name: fractions[name] for name in SPLITS if fractions.get(name, 0) > 0}
        self.group = group

    def cut(self, table: Any, name: str) -> dict[str, Any]:
        """The splits of a table.

        Args:
            table: a `datasets.Dataset`.
            name: of the table, for messages.

        Raises:
            ConfigError: for a column that is not there, a word that means no split, or a split without rows.
        """
        rows, empty = self._rows(table, name)
        if empty:
            raise ConfigError(
                f"{name} has {len(table)} rows: too few to give {empty[0]} the fraction {self.fractions[empty[0]]}\n"
                f"    add rows, or set data.split.fractions.{empty[0]} to 0 and raise another"
            )
        return _selected(table, rows)

    def cut_training(self, table: Any, name: str) -> dict[str, Any]:
        """As `cut`; a table with too few rows for every fraction is for training alone."""
        rows, empty = self._rows(table, name)
        return {"train": table} if empty else _selected(table, rows)

    def _rows(self, table: Any, name: str) -> tuple[dict[str, list[int]], list[str]]:
        """The rows of each split, and the splits that would get none of their fraction."""
        self.check_columns(table, name)
        rows = self._by_column(table, name)
        if rows is not None:
            return rows, []
        rows = self._by_fractions(table)
        return rows, [split for split in self.fractions if not rows.get(split)]

    def note(self, table: Any, splits: Mapping[str, Any], name: str) -> str | None:
        """How many rows each split got; None where a column says the splits."""
        if len(splits) < 2 or self._column_of(table) is not None:
            return None
        sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
        return (
            f"{name}: there is no other split, so data.split.fractions divides its rows: {sizes}\n"
            "    to train on all rows: 'data.split.fractions={train:1,val:0,test:0}'"
        )

    def check_columns(self, table: Any, name: str) -> None:
        """Refuse a named column that is not there.

        Raises:
            ConfigError: with the columns that are.
        """
        for key, wanted in (("column", self.column), ("group", self.group)):
            if wanted is not None and wanted not in table.column_names:
                raise ConfigError(
                    f"data.split.{key} = {wanted}, but {name} has the columns {', '.join(table.column_names)}\n"
                    "    name one of them"
                )

    def _by_column(self, table: Any, name: str) -> dict[str, list[int]] | None:
        """The rows of each split, where a column says it."""
        column = self._column_of(table)
        return None if column is None else _by_column(cells_of(table, column), column, name)

    def _column_of(self, table: Any) -> str | None:
        """The column that says the splits.

        A column that is only called as such columns are, and holds numbers of folds, says nothing of splits.
        """
        usual = next((c for c in USUAL_COLUMNS if c in table.column_names), None)
        column = self.column or usual
        if column is None:
            return None
        if self.column is None and not any(split_name(str(cell)) for cell in cells_of(table, column)):
            return None
        return column

    def _by_fractions(self, table: Any) -> dict[str, list[int]]:
        groups: dict[int | str, list[int]] = {}
        for row, group in enumerate(range(len(table)) if self.group is None else cells_of(table, self.group)):
            alone = self.group is None or is_empty(group)
            groups.setdefault(row if alone else str(group), []).append(row)
        members = list(groups.values())
        order = [permute(place, len(members), seed=mix(_SALT), epoch=0) for place in range(len(members))]
        rows: dict[str, list[int]] = {split: [] for split in self.fractions}
        taken = 0
        for place in order:
            # to the split that is furthest below its share so far, also with groups of unequal size
            taken += len(members[place])
            split = max(self.fractions, key=lambda s: self.fractions[s] * taken - len(rows[s]))
            rows[split] += members[place]
        return {split: sorted(result) for split, result in rows.items()}


class AllRows(Split):
    """A lone table whose rows are all to be predicted, unless a column says their splits."""

    def cut(self, table: Any, name: str) -> dict[str, Any]:
        """All rows as the test split, or the splits that a column says."""
        self.check_columns(table, name)
        rows = self._by_column(table, name)
        return {"test": table} if rows is None else _selected(table, rows)

    def cut_training(self, table: Any, name: str) -> dict[str, Any]:
        """As `cut`."""
        return self.cut(table, name)

    def note(self, table: Any, splits: Mapping[str, Any], name: str) -> str | None:
        """Nothing: no row is left out."""
        return None


def _selected(table: Any, rows: Mapping[str, list[int]]) -> dict[str, Any]:
    return {split: table.select(rows[split]) for split in SPLITS if rows.get(split)}


def _by_column(cells: Any, column: str, name: str) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        split = split_name(str(cell)) if cell is not None else None
        if split is None:
            raise ConfigError(
                f"{name}, row {row + 1}: {column} says {in_short(cell)!r}, which is no split\n"
                f"    write {', '.join(SPLITS)}, or set data.split.column to another column"
            )
        rows.setdefault(split, []).append(row)
    return rows
