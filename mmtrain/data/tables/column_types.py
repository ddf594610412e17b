"""What the columns of a table seem to hold, by their cells and names: for messages, never for training."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmtrain.data.tables.class_folders import KIND_OF
from mmtrain.data.tables.columns import USUAL_NAMES, Column, content_of, find_columns, is_empty
from mmtrain.data.tables.tables import readable_cell, rows_at

LOOKED_AT = 50  # rows
_ARRAYS = (".npy", ".npz", ".pt", ".safetensors")
_KNOWN = {"id", "split", "subset", "partition", "fold"}  # what these names say is neither an input nor a target


def guess_types(table: Any, wanted: Mapping[str, Column | None], kinds: Mapping[str, str | None]) -> dict[str, Column]:
    """What seems to hold each input or target whose column is not found.

    Args:
        table: a `datasets.Dataset`, or another table with its methods.
        wanted: by input or target, its column as `find_columns` takes it.
        kinds: how each is read.
    """
    names = table.column_names
    named = {name: column for name, column in wanted.items() if column is not None}
    wrong = [n for n, column in named.items() if not set([column] if isinstance(column, str) else column) <= set(names)]
    result = find_columns(names, {name: column for name, column in wanted.items() if name not in wrong}, where="")
    open_ = {name: kinds.get(name) for name in [*wrong, *(n for n in wanted if n not in wrong and n not in result)]}
    taken = [part for column in result.values() for part in ([column] if isinstance(column, str) else column)]
    rows = list(rows_at(table, range(min(len(table), LOOKED_AT)))) if open_ else []
    return guess_columns(open_, names, rows, taken=taken)


def guess_columns(
    wanted: Mapping[str, str | None], names: Sequence[str], rows: Sequence[Mapping[str, Any]], *, taken: Sequence[str]
) -> dict[str, Column]:
    """The column that each input or target may have, of those with fitting cells.

    Args:
        wanted: by name of an input or target, how it is read (`READ_AS` of cell_checks.py), the first to choose first.
        names: the columns of the table.
        rows: some of its rows.
        taken: columns that are known to hold something else.
    """
    free = [column for column in names if column not in taken and column.lower() not in _KNOWN]
    kinds = {column: _kinds([readable_cell(row, column) for row in rows[:LOOKED_AT]]) for column in free}
    results: dict[str, Column] = {}
    for name, kind in wanted.items():
        fitting = [column for column in free if kind in kinds[column] and column not in results.values()]
        if fitting:
            results[name] = max(fitting, key=lambda column: (_likeness(column, name), kinds[column][0] == kind))
    return results


def _likeness(column: str, name: str) -> float:
    """How much a column is called as such columns usually are, in steps that ignore chance."""
    words = re.split(r"[\W_]+", column.lower())
    usual = USUAL_NAMES.get(name, (name,))
    if any(word in usual for word in words):
        return 1.0
    near = max(difflib.SequenceMatcher(None, column.lower(), known).ratio() for known in usual)
    return near if near > 0.75 else 0.0


def _kinds(cells: Sequence[Any]) -> tuple[str, ...]:
    """How cells could be read, the likeliest first."""
    filled = [content_of(cell) for cell in cells if not is_empty(cell)]
    if not filled:
        return ()
    first = filled[0]
    if isinstance(first, bytes):
        return ("image", "audio", "video")
    if isinstance(first, list):
        if isinstance(first[0], str):
            return ("text", "classes", "answer")
        return ("vector", "sequence")
    if isinstance(first, Mapping):
        return ()
    texts = [str(cell).strip() for cell in filled]
    endings = {re.sub(r"^.*(\.\w+)$", r"\1", text).lower() for text in texts}
    files = {KIND_OF.get(ending, "sequence" if ending in _ARRAYS else "") for ending in endings}
    if len(files) == 1 and files != {""}:
        return tuple(files)
    repeated = len(set(texts)) <= max(2, len(texts) / 2)
    if all(re.fullmatch(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", text.lower()) for text in texts):
        return ("class", "number", "answer") if repeated and "." not in "".join(texts) else ("number",)
    several = sum("|" in text for text in texts) > len(texts) / 2
    if several:
        return ("classes", "text")
    length = sum(len(text.split()) for text in texts) / len(texts)
    return ("class", "answer", "text") if repeated and length < 4 else ("text", "answer", "class")
