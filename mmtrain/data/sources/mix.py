"""A mixture of data sets: the part of each position of an epoch, and the rows of all parts in one table.

An epoch has a fixed number of positions, by default the number of rows of all parts, and each part has a fraction of
them. A part goes through its own rows in its own keyed permutation, and continues where the previous epoch ended. None
of its rows is repeated before all of them have been used, for any fraction. A part with fewer rows than its fraction is
repeated several times per epoch. A part with more rows takes several epochs.

Temperature as in mT5 (arXiv:2010.11934, section 3.1; its alpha is 1 / temperature). Unusual: the parts are distributed
evenly over the epoch, with a keyed jitter, instead of sampled. Every batch has almost the fractions of the mixture, and
each part is read in order, as shards need it (order.py, BlockOrder).
"""

import hashlib
import itertools
import os
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmtrain.annotations import NonNegativeFloat, PositiveFloat, PositiveInt
from mmtrain.data.dataset import id_of
from mmtrain.data.order import KeyedOrder, Order, mix
from mmtrain.data.protocols import CountsMedia, InputKind
from mmtrain.data.sources.files import tables_of
from mmtrain.data.tables.cell_checks import NO_FILES
from mmtrain.data.tables.columns import Column, cell_of, find_columns
from mmtrain.data.tables.paths import PartPath, data_folder
from mmtrain.data.tables.row_checks import check_rows
from mmtrain.data.tables.row_digest import RowFacts, digest_rows
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import SPLITS, Tables, cells_of, rows_at
from mmtrain.data.tables.turn_columns import with_turn_columns
from mmtrain.errors import ConfigError

_UNIT = 1 << 64  # length of an epoch, the unit of places
_PLACES = 0x9A47


class Part:
    """One of the data sets.

    Args:
        source: returns its folder or its tables.
        split: how a single table is split.
        columns: its columns by input or target; others are found by their usual names.
        weight: its weight in an epoch, relative to the other parts; None in all parts for fractions by size.
        restrict_paths: whether all files, of its tables or named in one, must be in its folder.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Path | Tables],
        split: Split,
        columns: Mapping[str, Column | None],
        weight: NonNegativeFloat | None,
        restrict_paths: bool,
    ) -> None:
        if weight is not None and not 0 < weight < float("inf"):
            raise ValueError(f"weight = {weight}; set it above 0, or remove the part")
        self.source = source
        self.split = split
        self.columns = dict(columns)
        self.weight = weight
        self.restrict_paths = restrict_paths

    def read(self) -> Tables:
        """Read its tables."""
        return tables_of(self.source(), self.split, restrict_paths=self.restrict_paths)


class PartTable:
    """A table of a part with the names of inputs and targets as columns.

    Args:
        name: name of the part, which is the prefix of ids.
        table: the table of the part.
        columns: columns of the table by input or target.
        paths: inputs whose text is a path.
        folder: folder of the part, relative to that of the mixture; the prefix of paths.
        root: folder of the part, as from `data_folder`; paths must stay in it.
    """

    def __init__(
        self, *, name: str, table: Any, columns: Mapping[str, Column], paths: Sequence[str], folder: Path, root: Path
    ) -> None:
        self.name = name
        self.table = table
        self.columns = columns
        self._paths = frozenset(paths)
        self._folder = folder
        self._root = root

    def __len__(self) -> int:
        return len(self.table)

    def cell(self, cells: Mapping[str, Any], row: int, name: str) -> Any:
        """The cell of an input or target, or the id of a row."""
        if name == "id":
            return f"{self.name}/{id_of(cells, row)}"
        return self._placed(cell_of(cells, self.columns.get(name)), name)

    def column(self, name: str) -> Iterator[Any]:
        """The cells of an input or target; None in every row if the part has none."""
        if name == "id":
            yield from (f"{self.name}/{id_of({'id': own}, row)}" for row, own in enumerate(self._ids()))
        elif name not in self.columns:
            yield from (None for _ in self._ids())
        else:
            yield from (self._placed(cell, name) for cell in cells_of(self.table, self.columns[name]))

    def digest_rows(self, columns: Sequence[str], *, media: Collection[str], folder: Path) -> RowFacts:
        """Facts of the part's own table for the comparison in a resumed run.

        Args:
            columns: inputs, targets and "id".
            media: those of them whose cells are files.
            folder: folder of the mixture.
        """
        own = {"id": ["id"]} | {name: [c] if isinstance(c, str) else c for name, c in self.columns.items()}
        read = [column for name in columns for column in own.get(name, [])]
        files = [column for name in media for column in own.get(name, [])]
        return digest_rows(self.table, read, media=files, folder=folder / self._folder)

    def _ids(self) -> Iterator[Any]:
        if "id" in self.table.column_names:
            return cells_of(self.table, "id")
        return itertools.repeat(None, len(self.table))

    def _placed(self, value: Any, name: str) -> Any:
        """A cell with paths relative to the folder of the mixture."""
        if name not in self._paths:
            return value
        if isinstance(value, str) and value.strip():
            return self._path(value)
        if isinstance(value, list):
            return [self._placed(part, name) for part in value]
        if isinstance(value, Mapping) and isinstance(value.get("path"), str) and value.get("bytes") is None:
            return {**value, "path": self._path(value["path"])}
        return value

    def _path(self, value: str) -> PartPath:
        return PartPath(str(self._folder / value), self._root, self.name)


class MixCells(Mapping[str, Any]):
    """A row of a mixture. Of shards, only requested cells are read."""

    def __init__(self, part: PartTable, row: int, cells: Mapping[str, Any]) -> None:
        self._part = part
        self._row = row
        self._cells = cells

    def __getitem__(self, name: str) -> Any:
        if name != "id" and name not in self._part.columns:
            raise KeyError(name)
        return self._part.cell(self._cells, self._row, name)

    def __iter__(self) -> Iterator[str]:
        return iter(["id", *self._part.columns])

    def __len__(self) -> int:
        return 1 + len(self._part.columns)


class MixTable:
    """The rows of several parts, one part after the other, with the access of a `datasets.Dataset`.

    Columns have the names of inputs and targets. Ids have the part as prefix: "openmoji/1F44D".
    """

    def __init__(self, parts: Sequence[PartTable]) -> None:
        self.parts = list(parts)
        self._ends = list(itertools.accumulate(map(len, parts)))
        self.column_names = list(dict.fromkeys(["id", *(name for part in parts for name in part.columns)]))
        made_of = [(part.name, part.table._fingerprint, part.columns) for part in parts]
        self._fingerprint = hashlib.sha256(str(made_of).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return (cell for part in self.parts for cell in part.column(key))
        if not 0 <= key < len(self):
            raise IndexError(f"row {key} of {len(self)}")
        return self.__getitems__([key])[0]

    def digest_rows(self, columns: Sequence[str], *, media: Collection[str], folder: Path) -> RowFacts:
        """Facts for the comparison in a resumed run: by part, and the order of the parts, which determines draws."""
        parts = {part.name: part.digest_rows(columns, media=media, folder=folder) for part in self.parts}
        return {"count": len(self), "order": ", ".join(parts), "parts": parts}

    def __getitems__(self, rows: list[int]) -> list[MixCells]:
        """Several rows; those of one part are read together."""
        of_part: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            of_part[bisect_right(self._ends, row)].append(row)
        results: dict[int, MixCells] = {}
        for number, part_rows in of_part.items():
            part, first = self.parts[number], self._ends[number] - len(self.parts[number])
            own = rows_at(part.table, [row - first for row in part_rows])
            results |= {row: MixCells(part, row - first, cells) for row, cells in zip(part_rows, own, strict=True)}
        return [results[row] for row in rows]


class MixOrder:
    """Maps positions to rows of parts, in O(parts) time and memory.

    The epoch is divided into equal intervals for each part, as many as the part has positions. The n-th position of the
    part is somewhere in the n-th interval. The positions of all parts in this order are the epoch.

    Args:
        orders: orders of the parts' rows, each over all of them.
        sizes: number of rows of each part's table, in the order of the table of the mixture.
        shares: number of positions of each part in an epoch.
    """

    def __init__(self, *, orders: Sequence[Order], sizes: Sequence[int], shares: Sequence[int]) -> None:
        self._orders = list(orders)
        self._first_rows = [end - size for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]
        self._shares = list(shares)
        self._size = sum(shares)
        self.has_each_once = all(
            order.has_each_once and len(order) == size == share
            for order, size, share in zip(orders, sizes, shares, strict=True)
        )

    def __len__(self) -> int:
        return self._size

    def row(self, position: int, *, seed: int, epoch: int) -> int:
        """The row in the table of all parts."""
        part, nth = self.part(position, seed=seed, epoch=epoch)
        order = self._orders[part]
        own_epoch, place = divmod(epoch * self._shares[part] + nth, len(order))
        return self._first_rows[part] + order.row(place, seed=mix(seed, part), epoch=own_epoch)

    def rows(self, positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The rows at any positions, (N,) -> (N,), int64."""
        return np.array([self.row(p, seed=seed, epoch=epoch) for p in positions.tolist()], dtype=np.int64)

    def part(self, position: int, *, seed: int, epoch: int) -> tuple[int, int]:
        """The part of a position, and the number of positions of that part before it in the epoch.

        Before any point, each part differs by at most one position from its fraction. Only few positions are therefore
        near the expected point.
        """
        assert 0 <= position < self._size, f"position {position} of {self._size}"
        slack = len(self._shares)
        low = max(0, (position - slack) * _UNIT // self._size)
        high = (position + slack + 1) * _UNIT // self._size + 1
        before = 0
        near: list[tuple[int, int, int]] = []
        for part, share in enumerate(self._shares):
            nth = low * share // _UNIT
            nth += nth < share and self._place(part, nth, seed, epoch) < low
            before += nth
            while nth < share and (place := self._place(part, nth, seed, epoch)) < high:
                near.append((place, part, nth))
                nth += 1
        _, part, nth = sorted(near)[position - before]
        return part, nth

    def _place(self, part: int, nth: int, seed: int, epoch: int) -> int:
        """The place in the epoch of the n-th position of a part."""
        return (nth * _UNIT + mix(seed, epoch, part, nth, _PLACES)) // self._shares[part]


def mix_tables(
    *,
    parts: Mapping[str, Part],
    inputs: Mapping[str, InputKind],
    targets: Sequence[str],
    temperature: PositiveFloat,
    epoch_size: PositiveInt | None,
) -> Tables:
    """The tables of several data sets as one: training mixed, other splits one part after the other, each row once.

    Args:
        parts: parts by name, which is the prefix of ids.
        inputs: inputs by modality, which determine the columns and which of them are paths.
        targets: names of targets.
        temperature: without weights, fractions are proportional to size ** (1 / temperature): 1 for size, larger values
            are more even.
        epoch_size: number of samples of an epoch; None for the number of training rows of all parts.

    Raises:
        ConfigError: if there is no part, one cannot be read, only some have weights, or an epoch has no position for
            one.
    """
    if not parts:
        raise ConfigError(
            "data=mix has no parts\n    fix: add some: +part@data.parts.mine=files data.parts.mine.source.root=DIR"
        )
    if not temperature > 0:
        raise ConfigError(
            f"data.temperature={temperature}: not above 0\n    fix: set it to 1 for fractions by size; 3 is more even"
        )
    results = {name: _of_part(name, part) for name, part in parts.items()}
    folder = _common({name: tables.folder for name, tables in results.items()})
    by_split: dict[str, list[PartTable]] = {split: [] for split in SPLITS}
    for name, part in parts.items():
        for split, table in _part_tables(name, part, results[name], inputs, targets, folder).items():
            by_split[split].append(table)
    splits = {split: MixTable(tables) for split, tables in by_split.items() if tables}
    names = {split: " + ".join(results[t.name].names[split] for t in by_split[split]) for split in splits}
    order = _order(by_split["train"], parts, results, temperature, epoch_size) if by_split["train"] else None
    restrict_paths = all(part.restrict_paths for part in parts.values())
    return Tables(splits=splits, names=names, folder=data_folder(folder, restrict_paths=restrict_paths), order=order)


def _of_part(name: str, part: Part) -> Tables:
    """The tables of a part. Messages have the key of the part."""
    try:
        return part.read()
    except ConfigError as error:
        raise ConfigError(_keyed(str(error), name)) from error


def _keyed(message: str, part: str) -> str:
    return re.sub(r"\bdata\.(columns|restrict_paths)\b", rf"data.parts.{part}.\1", message)


def _common(folders: Mapping[str, Path]) -> Path:
    """The common folder of all parts."""
    return Path(os.path.commonpath([folder.absolute() for folder in folders.values()]))


def _part_tables(
    name: str, part: Part, tables: Tables, inputs: Mapping[str, InputKind], targets: Sequence[str], common: Path
) -> dict[str, PartTable]:
    sought = [*inputs, *targets]
    for key in part.columns:
        if key not in sought:
            raise ConfigError(
                f"data.parts.{name}.columns.{key} is not an input or target; there are {', '.join(sought)}\n"
                f"    fix: name one of them, or add it: +input@data.inputs.{key}=text"
            )
    wanted = {key: part.columns.get(key) for key in sought}
    files = [key for key, reader in inputs.items() if reader.kind not in NO_FILES]
    several = [key for key in files if isinstance(inputs[key], CountsMedia)]
    tables = with_turn_columns(tables, wanted, media=files, labels=targets, several=several)
    split, first = next(iter(tables.splits.items()))
    try:
        columns = find_columns(first.column_names, wanted, where=tables.names[split])
    except ConfigError as error:
        raise ConfigError(_keyed(str(error), name)) from error
    paths = {key: columns[key] for key in files if key in columns}
    root = tables.folder.absolute()
    for split, table in tables.splits.items() if part.restrict_paths else ():
        try:
            check_rows(table, tables.names[split], paths, root, restrict_paths=True)
        except ConfigError as error:
            raise ConfigError(_keyed(str(error), name)) from error
    folder = root.relative_to(common)
    return {
        split: PartTable(name=name, table=table, columns=columns, paths=list(paths), folder=folder, root=root)
        for split, table in tables.splits.items()
    }


def _order(
    tables: Sequence[PartTable],
    parts: Mapping[str, Part],
    by_name: Mapping[str, Tables],
    temperature: float,
    epoch_size: int | None,
) -> MixOrder:
    orders: list[Order] = [by_name[table.name].order or KeyedOrder(len(table)) for table in tables]
    sizes = [len(order) for order in orders]
    weights = _weights({table.name: parts[table.name].weight for table in tables}, sizes, temperature)
    shares = shares_of(weights, sum(sizes) if epoch_size is None else epoch_size)
    for table, share in zip(tables, shares, strict=True):
        if share == 0:
            raise ConfigError(
                f"data.parts.{table.name} has no place in an epoch of {sum(shares)}\n"
                f"    fix: raise data.epoch_size or data.parts.{table.name}.weight, or remove the part"
            )
    return MixOrder(orders=orders, sizes=[len(table) for table in tables], shares=shares)


def _weights(given: Mapping[str, float | None], sizes: Sequence[int], temperature: float) -> list[float]:
    weights = [weight for weight in given.values() if weight is not None]
    if weights and len(weights) < len(given):
        without = next(name for name, weight in given.items() if weight is None)
        raise ConfigError(
            f"data.parts.{without}.weight is not set, but other parts have one\n"
            "    fix: set the weight of every part, or of none for fractions by size"
        )
    return weights or [size ** (1 / temperature) for size in sizes]


def shares_of(weights: Sequence[float], size: int) -> list[int]:
    """A number of positions distributed by weights: integer parts, then one each to the largest remainders.

    >>> shares_of([1, 1, 2], 10), shares_of([2.0, 1.0], 100)
    ([3, 2, 5], [67, 33])
    """
    exact = [weight / sum(weights) * size for weight in weights]
    shares = [int(share) for share in exact]
    for number in sorted(range(len(shares)), key=lambda n: shares[n] - exact[n])[: size - sum(shares)]:
        shares[number] += 1
    return shares
