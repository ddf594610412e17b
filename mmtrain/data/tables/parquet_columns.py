"""Which columns of a parquet file can be read: `datasets` refuses files with columns of types that it does not know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def readable_columns(path: Path) -> tuple[list[str], list[str]]:
    """The columns of a file that can be read, and a note for each of the others.

    Raises:
        OSError: when it cannot be opened.
        ValueError: when it is no parquet file.
    """
    import pyarrow.parquet as pq

    schema = pq.read_schema(path, memory_map=True)
    unknown = {field.name: field.type for field in schema if not _is_known(field.type)}
    notes = [
        f"{path}: the column {name} is not read, because of its type {kind}\n    {_fix(path, name, kind)}"
        for name, kind in unknown.items()
    ]
    return [name for name in schema.names if name not in unknown], notes


def _is_known(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_map(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_union(kind):
        return False
    return all(map(_is_known, _inner(kind)))


def _inner(kind: Any) -> Iterator[Any]:
    """The types of the parts of a list or a struct."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield kind.value_type
    elif pa.types.is_struct(kind):
        yield from (field.type for field in kind)


def _fix(path: Path, name: str, kind: Any) -> str:
    import pyarrow as pa

    if not pa.types.is_map(kind):
        return "if it is needed, write it with another type, such as string or a list of numbers"
    cells = f"[dict(m or ()).get('KEY') for m in t['{name}'].to_pylist()]"
    program = f"t = p.read_table('{path}'); p.write_table(t.append_column('{name}.KEY', [{cells}]), '{path}')"
    return f'to make a column of one of its keys: python -c "import pyarrow.parquet as p; {program}"'
