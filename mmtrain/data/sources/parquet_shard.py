"""A parquet file that is read in place: one column of a row group at a time, on request."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from mmtrain.data.sources.shard_files import Index, Place, is_remote, opened, remote_errors, with_retries
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.errors import ConfigError, SampleError


def index_parquet(place: Place) -> Index:
    """Number of rows of each row group, blocks: (G,), int64, and the columns.

    Raises:
        ConfigError: if its footer cannot be read, or it has no rows.
    """
    import pyarrow as pa

    try:
        with opened(place.path) as file:
            result = _parquet(place.path, file)
            metadata = result.metadata
            blocks = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            columns = result.schema_arrow.names
    except (pa.ArrowException, *remote_errors()) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{place.path} cannot be read as parquet: {reason}\n    fix: create or download it again, or remove it"
        ) from error
    if not sum(blocks):
        raise ConfigError(f"{place.path} has no rows\n    fix: fill it, or remove it")
    return {"blocks": np.array(blocks, dtype=np.int64), "columns": np.array(columns)}


def _parquet(path: str, file: Any) -> Any:
    import pyarrow.parquet as pq

    near = not is_remote(path)
    return pq.ParquetFile(path if near else file, memory_map=near, page_checksum_verification=True)


class GroupCache:
    """Columns of the row groups that were read last, by file and group.

    Args:
        size: number of groups in the cache.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._groups: OrderedDict[tuple[str, int], dict[str, Any]] = OrderedDict()

    def group(self, path: str, number: int) -> dict[str, Any]:
        """The cached columns of a group, to which more can be added."""
        group = self._groups.setdefault((path, number), {})
        self._groups.move_to_end((path, number))
        if len(self._groups) > self._size:
            self._groups.popitem(last=False)
        return group


class ParquetShard:
    """An open file.

    Args:
        place: the file.
        index: the file with the result of `index_parquet`.
        cache: cache of all shards of a table.
    """

    def __init__(self, place: Place, index: Path, cache: GroupCache) -> None:
        self.name = place.path.rpartition("/")[2]
        self._path = place.path
        self._cache = cache
        with np.load(index, allow_pickle=False) as arrays:
            self._starts = np.cumsum(arrays["blocks"]) - arrays["blocks"]
            self._columns: list[str] = arrays["columns"].tolist()
        self._file = opened(place.path)
        self._parquet = _parquet(place.path, self._file)

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()

    def id(self, row: int) -> str:
        """The row's id if the file has such a column; otherwise its index."""
        given = self.cell(row, "id") if "id" in self._columns else None
        return str(row) if given is None or given == "" else str(given)

    def columns(self, row: int) -> list[str]:
        """The columns of the file."""
        return self._columns

    def is_text(self, column: str) -> bool:
        """Whether the cells of a column are text, or lists of texts."""
        import pyarrow as pa

        if column not in self._columns:
            return False
        kind = self._parquet.schema_arrow.field(column).type
        kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def cell(self, row: int, column: str) -> Any:
        """The cell as from `datasets`: numbers, text, bytes, lists, dicts.

        Raises:
            KeyError: if the file has no such column.
            SampleError: if it cannot be read.
        """
        import pyarrow as pa

        if column not in self._columns:
            raise KeyError(column)
        number = int(self._starts.searchsorted(row, side="right")) - 1
        group = self._cache.group(self._path, number)
        if column not in group:
            try:  # threads of arrow do not survive the fork of a worker
                read = with_retries(
                    lambda: self._parquet.read_row_group(number, columns=[column], use_threads=False), self._path
                )
            except (pa.ArrowException, *remote_errors()) as error:
                reason = str(error).splitlines()[0]
                raise SampleError(self.name, f"{column} of row group {number} cannot be read: {reason}") from error
            group[column] = read.column(column)
        with sample_errors(f"{self.name}: {column} of row {row}"):  # such as a text that is not UTF-8
            return group[column][row - int(self._starts[number])].as_py()
