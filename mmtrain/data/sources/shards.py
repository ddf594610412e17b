"""Shards as tables: WebDataset tars and parquet files that are read in place, locally or on a server.

Nothing is copied or unpacked. An index per shard has the position of each row. It is created once, from the headers of
a tar or the footer of a parquet file, and cached. A run's order (order.py, BlockOrder) reads a few shards or row groups
at a time, and every row still occurs once per epoch.
"""

import bisect
import hashlib
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmtrain.annotations import PositiveInt
from mmtrain.data.order import BlockOrder
from mmtrain.data.sources.parquet_shard import GroupCache, ParquetShard, index_parquet
from mmtrain.data.sources.shard_files import Place, indexed, is_remote, paths_of, place_of, suffix_of
from mmtrain.data.sources.tar_shard import TarShard, index_tar
from mmtrain.data.tables.arrow_digest import digest_of
from mmtrain.data.tables.paths import RemoteFolder
from mmtrain.data.tables.row_digest import NUM_SAMPLED, RowFacts, digest_cells, row_facts, spread
from mmtrain.data.tables.sample_errors import describe_error
from mmtrain.data.tables.tables import SPLITS, Tables
from mmtrain.errors import ConfigError, SampleError

_OPENERS = 8  # number of simultaneous requests for shards
_LEAST_OPEN = 16  # minimum number of open tars
_BLOCKS_COMPARED = 64  # number of blocks whose rows a resumed run compares, and of shards whose indices
_REMOTE_COMPARED = 8  # number of first rows, if each needs a request

Patterns = str | Sequence[str]


class Shard(Protocol):
    """An open shard: rows by index."""

    name: str

    def close(self) -> None:
        """Close the file."""
        ...

    def id(self, row: int) -> str:
        """The name of a row, unique in the shard."""
        ...

    def columns(self, row: int) -> list[str]:
        """The columns of a row."""
        ...

    def is_text(self, column: str) -> bool:
        """Whether the cells of a column are text, paths or JSON, and not the bytes of files."""
        ...

    def cell(self, row: int, column: str) -> Any:
        """One cell; KeyError if the row does not have it, SampleError if it cannot be read."""
        ...


class Cells(Mapping[str, Any]):
    """A row that is read on request, which can raise a SampleError."""

    def __init__(self, table: "ShardTable", number: int, row: int) -> None:
        self._table = table
        self._number = number
        self._row = row

    def __getitem__(self, column: str) -> Any:
        try:
            if column == "id":
                return self._table.name(self._number, self._row)
            return self._table.shard(self._number).cell(self._row, column)
        except (KeyError, SampleError, ConfigError):
            raise
        except Exception as error:  # as in sample_errors.py, also for a KeyError
            raise SampleError(f"{column} of row {self._row}", f"cannot be read: {describe_error(error)}") from error

    def __iter__(self) -> Iterator[str]:
        columns = self._table.shard(self._number).columns(self._row)
        return iter(["id", *(c for c in columns if c != "id")])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Indexed(NamedTuple):
    """A shard, and the file with its index."""

    place: Place
    file: Path
    columns: list[str]
    blocks: np.ndarray  # rows of each row group, or of the complete tar

    @property
    def is_remote(self) -> bool:
        """Whether it is on a server."""
        return is_remote(self.place.path)


class ShardTable:
    """Rows of many shards, with the access of a `datasets.Dataset`.

    A row is a mapping with "id" and its columns. Only requested cells are read. The id is the name of the shard and of
    the sample: "train-007/0001". A parquet file with a column id has its values as ids. Files are opened on demand,
    separately in each process.

    Args:
        shards: shards in the order of the rows.
        window: number of blocks that are read at a time, which is the number of open row groups and the minimum of
            files.
        fit_rows: maximum length of `table["column"]`, with rows evenly spaced over the table, so vocabularies can be
            learned from a table that would take hours to read. None for all rows, as evaluation needs it.
    """

    def __init__(self, shards: Sequence[Indexed], *, window: int, fit_rows: int | None) -> None:
        self._shards = list(shards)
        self._window = window
        self._fit_rows = fit_rows
        self._prefixes = _prefixes([shard.place.path for shard in shards])
        self._ends: list[int] = np.cumsum([int(shard.blocks.sum()) for shard in shards]).tolist()
        self.column_names = list(dict.fromkeys(["id", *(c for shard in shards for c in shard.columns)]))
        self._fingerprint = hashlib.sha256(str([shard.place for shard in shards]).encode()).hexdigest()[:16]
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._groups = GroupCache(self._window + 1)

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned worker, without open files."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_open", "_groups")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def block_sizes(self) -> np.ndarray:
        """Number of rows of each block (a tar, a row group), in the order of the rows; int64."""
        return np.concatenate([shard.blocks for shard in self._shards])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self._column(key)
        if not 0 <= key < len(self):
            raise IndexError(f"row {key} of {len(self)}")
        number = bisect.bisect_right(self._ends, key)
        return Cells(self, number, key - (self._ends[number - 1] if number else 0))

    def name(self, number: int, row: int) -> str:
        """The id of a row of a shard."""
        own = self.shard(number).id(row)
        return own if "id" in self._shards[number].columns else f"{self._prefixes[number]}/{own}"

    def _column(self, column: str) -> Iterator[Any]:
        """The cells. A row that cannot be read has none; reading the sample reports the reason."""
        count = len(self) if self._fit_rows is None else min(len(self), self._fit_rows)
        for nth in range(count):
            try:
                yield self[nth * len(self) // count].get(column)
            except SampleError:
                yield None

    def digest_rows(self, columns: Sequence[str], *, media: Collection[str], folder: Path) -> RowFacts:
        """Facts for the comparison in a resumed run, without reading everything.

        Of all shards: names, sizes and numbers of rows. Of 64 shards: the index, which for a tar has the name and the
        size of each file in it. Of 64 tars or row groups: some rows, together 1000, without the bytes of media. Of
        remote shards: the first 8 rows.

        Args:
            columns: columns that are read; shards may not have them.
            media: those of them whose cells are files.
            folder: not needed.
        """
        places = [
            [prefix, suffix_of(shard.place.path), shard.place.size, shard.blocks.tolist()]
            for prefix, shard in zip(self._prefixes, self._shards, strict=True)
        ]
        indices = [_digest_index(self._shards[number].file) for number in spread(len(places), _BLOCKS_COMPARED)]
        rows = self._rows_compared()
        first = self.shard(0)
        available = [
            c for c in dict.fromkeys(columns) if c in self.column_names and (c not in media or first.is_text(c))
        ]
        cells: dict[str, list[Any]] = {column: [] for column in available}
        for row in rows:  # in the order of the file
            for column in available:
                cells[column].append(self._cell(row, column))
        digests = {column: digest_cells(result) for column, result in cells.items()}
        return row_facts(len(self), digests, shards=digest_of([places, indices]))

    def _rows_compared(self) -> list[int]:
        if any(is_remote(shard.place.path) for shard in self._shards):
            return list(range(min(len(self), _REMOTE_COMPARED)))
        sizes = self.block_sizes
        starts = np.cumsum(sizes) - sizes
        blocks = spread(len(sizes), _BLOCKS_COMPARED)
        most = max(1, NUM_SAMPLED // len(blocks))
        return [int(starts[block]) + row for block in blocks for row in spread(int(sizes[block]), most)]

    def _cell(self, row: int, column: str) -> Any:
        try:
            return self[row].get(column)
        except SampleError:  # reading the sample reports the reason
            return "cannot be read"

    def shard(self, number: int) -> Shard:
        """An open shard."""
        if self._process != os.getpid():  # a fork shares the file position with its parent
            self._forget()
        if number not in self._open:
            self._open[number] = self._opened(self._shards[number])
            if len(self._open) > max(_LEAST_OPEN, 2 * self._window):
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def _opened(self, shard: Indexed) -> Shard:
        if suffix_of(shard.place.path) == ".tar":
            return TarShard(shard.place, shard.file)
        return ParquetShard(shard.place, shard.file, self._groups)


def shard_tables(
    *,
    train: Patterns | None,
    val: Patterns | None,
    test: Patterns | None,
    window: PositiveInt,
    fit_rows: PositiveInt,
    cache_dir: str | Path,
) -> Tables:
    """Tables of shards.

    Args:
        train: files with the suffix .tar or .parquet: a path, a glob, a pattern such as {000..127}.tar, or a list of
            these. Local, or a URL for fsspec (https, s3, hf ...). None if there is none.
        val: as `train`.
        test: as `train`.
        window: number of blocks (tars, row groups) whose rows are mixed in training.
        fit_rows: number of training rows from which vocabularies are learned, evenly spaced; other splits are read
            completely.
        cache_dir: folder of the indices.

    Raises:
        ConfigError: if a pattern matches nothing, or a shard is missing, damaged, truncated or empty.
    """
    for name, value in (("window", window), ("fit_rows", fit_rows)):
        if value < 1:
            raise ConfigError(f"{name} = {value} is below 1\n    fix: set {name} to 1 or more")
    given = {split: patterns for split, patterns in zip(SPLITS, (train, val, test), strict=True) if patterns}
    if not given:
        raise ConfigError("there is neither a train, a val nor a test shard\n    fix: set data.train to a pattern")
    cache = Path(cache_dir).expanduser()
    splits = {
        split: ShardTable(
            _indexed(paths_of(patterns, f"data.{split}"), cache),
            window=window,
            fit_rows=fit_rows if split == "train" else None,
        )
        for split, patterns in given.items()
    }
    order = BlockOrder(splits["train"].block_sizes, window=window) if "train" in splits else None
    names = {split: patterns if isinstance(patterns, str) else ", ".join(patterns) for split, patterns in given.items()}
    files = [Path(shard.place.path) for table in splits.values() for shard in table._shards if not shard.is_remote]
    return Tables(
        splits=splits,
        names=names,
        folder=_folder(next(iter(splits.values()))),
        order=order,
        files=[(file.parent, file) for file in files],
    )


def _indexed(paths: list[str], cache: Path) -> list[Indexed]:
    """The shards with their indices, which are created if they are missing."""
    for path in paths:
        if suffix_of(path) not in (".tar", ".parquet"):
            ending = "is compressed" if suffix_of(path) in (".gz", ".tgz", ".zst") else "is not a shard"
            raise ConfigError(f"{path} {ending}\n    fix: use .tar or .parquet files; rows are read in place")
    with ThreadPoolExecutor(_OPENERS if any(map(is_remote, paths)) else 1) as pool:
        return list(pool.map(lambda path: _index(path, cache), paths))


def _index(path: str, cache: Path) -> Indexed:
    place = place_of(path)
    file = indexed(place, cache, index_tar if suffix_of(path) == ".tar" else index_parquet)
    with np.load(file, allow_pickle=False) as arrays:
        return Indexed(place, file, arrays["columns"].tolist(), arrays["blocks"])


def _digest_index(file: Path) -> str:
    """Digest of an index, without positions in the shard, which follow from sizes and the kind of header."""
    digest = hashlib.blake2b(digest_size=8)
    with np.load(file, allow_pickle=False) as arrays:
        for name in sorted(set(arrays.files) - {"offsets"}):
            digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _folder(table: ShardTable) -> Path:
    """Base of paths in the rows: the folder of the first shard, or the working directory for a remote shard."""
    first = table._shards[0]
    return RemoteFolder.cwd() if first.is_remote else Path(first.place.path).parent


def _prefixes(paths: Sequence[str]) -> list[str]:
    """Names of shards without suffix, with as many of their folders as necessary to distinguish them.

    >>> _prefixes(["/x/a/0.tar", "/x/b/0.tar"]), _prefixes(["/x/a/0.tar", "/x/a/1.tar"])
    (['a/0', 'b/0'], ['0', '1'])
    """
    stems = [PurePosixPath(path.partition("?")[0]).with_suffix("") for path in paths]
    depth = 1
    while len({stem.parts[-depth:] for stem in stems}) < len(stems) and depth < max(len(s.parts) for s in stems):
        depth += 1
    return ["/".join(stem.parts[-depth:]) for stem in stems]
