"""The types of numbers in lists: an Arrow table has them, and its rows are lists of Python numbers without them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmtrain.data.tables.columns import Column
from mmtrain.data.tables.tables import SupportsColumns

_OF_PYTHON = (np.dtype(np.int64), np.dtype(np.float64))  # what Arrow makes of any list of Python numbers


def number_type(table: Any, column: Column | None) -> np.dtype[Any] | None:
    """The type of the numbers in the lists of a column, or in the "array" of its dicts.

    Returns:
        None for a column of something else, for int64 and float64, which say nothing of where the numbers come from,
        and for a table that is not one of Arrow.
    """
    if not isinstance(column, str) or not isinstance(table, SupportsColumns) or column not in table.data.column_names:
        return None
    import pyarrow as pa

    kind = table.data.column(column).type
    if pa.types.is_struct(kind):
        place = kind.get_field_index("array")
        kind = kind.field(place).type if place >= 0 else kind
    depth = 0
    while True:
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            break
        kind, depth = kind.value_type, depth + 1
    if depth == 0 or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    dtype = np.dtype(kind.to_pandas_dtype())
    return None if dtype in _OF_PYTHON else dtype


def typed_cell(cell: Any, dtype: np.dtype[Any] | None) -> Any:
    """A cell with its numbers as an array of their type; as it is where they are no array: its reader says so."""
    if dtype is None:
        return cell
    if isinstance(cell, Mapping):
        return {**cell, "array": typed_cell(cell["array"], dtype)} if "array" in cell else cell
    if not isinstance(cell, list):
        return cell
    try:
        return np.asarray(cell, dtype=dtype)
    except (ValueError, TypeError):  # lists of unequal length, a null
        return cell
