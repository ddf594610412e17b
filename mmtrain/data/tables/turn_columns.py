"""Content of dialogue turns as columns of their rows: pictures, sounds and films, and labels of the last turn.

Media can also be in the content of a turn, which is then a list of parts, or in its words.

As columns they are looked for, checked, read and set aside as all others are. A column that the rows have themselves
goes before what turns have.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

from mmtrain.data.tables.cell_checks import FIRST_ROWS
from mmtrain.data.tables.columns import USUAL_NAMES, Column, is_empty
from mmtrain.data.tables.content_parts import media_of_parts
from mmtrain.data.tables.json_rows import parse_json
from mmtrain.data.tables.tables import Tables, cells_of

SPEAKERS = ("speaker", "role", "from")
WORDS = ("text", "content", "value", "utterance")
_NEAR = 0.8  # imgae is near to image, speech_act is not near to speech


@runtime_checkable
class ExtendableTable(Protocol):
    """A table that can be had with one column more, as a `datasets.Dataset`.

    Attributes:
        column_names: of the table.
    """

    column_names: list[str]

    def add_column(self, name: str, column: list[Any]) -> "ExtendableTable":
        """The table with the column."""
        ...


def with_turn_columns(
    split_tables: Tables,
    wanted: Mapping[str, Column | None],
    *,
    media: Sequence[str],
    labels: Sequence[str],
    several: Collection[str] = (),
) -> Tables:
    """The tables, with a column for each input and target that is found in turns alone.

    A medium is that of the last turn that has one, or all in their order where a row can have several; a label is that
    of the last turn. Tables that cannot grow, such as shards, stay as they are.

    Args:
        split_tables: the tables.
        wanted: by input or target, its column or key, or None to look for the usual names.
        media: inputs whose cells are files.
        labels: targets.
        several: the media that a row can have several of.
    """
    first = next(iter(split_tables.splits.values()))
    turns = _column_of_turns(first.column_names, wanted)
    tables = {
        s: t for s, t in split_tables.splits.items() if isinstance(t, ExtendableTable) and turns in t.column_names
    }
    if turns is None or not tables:
        return split_tables
    heads = chain.from_iterable(islice(cells_of(table, turns), FIRST_ROWS) for table in tables.values())
    seen = [turn for cell in heads for turn in _turns(cell)]
    keys = dict.fromkeys(key for turn in seen for key in turn if not is_empty(turn[key]))
    new = {n: key for n in (*media, *labels) if (key := _key(n, wanted, first.column_names, keys)) is not None}
    rules = {key: (name in media, name in several) for name, key in new.items()}
    grown = {split: _grown(table, turns, rules) for split, table in tables.items()}
    shown = {modality for turn in seen for modality, _ in media_of_parts(turn)}
    for name in (n for n in media if n in shown and n not in new):
        column, *others = _names(name, wanted) or (name,)
        if not {column, *others} & set(first.column_names):
            grown = {split: _with_media(table, turns, name, column, name in several) for split, table in grown.items()}
    notes = [*split_tables.notes, *_misspelt(keys, new.values(), media, where=next(iter(split_tables.names.values())))]
    return replace(split_tables, splits={**split_tables.splits, **grown}, notes=notes)


def _column_of_turns(names: Sequence[str], wanted: Mapping[str, Column | None]) -> str | None:
    usual = (name for kind in ("dialogue", "chat") for name in _names(kind, wanted))
    return next((name for name in usual if name in names), None)


def _names(name: str, wanted: Mapping[str, Column | None]) -> tuple[str, ...]:
    """What the column of an input or target can be called."""
    column = wanted.get(name)
    if column is None:
        return USUAL_NAMES.get(name, (name,))
    return (column,) if isinstance(column, str) else ()


def _key(name: str, wanted: Mapping[str, Column | None], present: Sequence[str], keys: Collection[str]) -> str | None:
    """The key of turns that holds an input or target; None when the rows have it themselves, or nothing does."""
    names = _names(name, wanted)
    if any(column in present for column in names):
        return None
    return next((key for key in names if key in keys and key not in SPEAKERS + WORDS), None)


def _turns(cell: Any) -> list[Mapping[str, Any]]:
    """The turns of a cell, {} for a turn of words alone; [] if it is no dialogue, which is reported when it is read."""
    if isinstance(cell, str):
        try:
            cell = parse_json(cell)
        except ValueError:
            return []
    turns = cell if isinstance(cell, list | tuple) else []
    return [turn if isinstance(turn, Mapping) else {} for turn in turns]


def _grown(table: Any, turns: str, rules: Mapping[str, tuple[bool, bool]]) -> Any:
    """The table with the missing columns. `rules` says of each whether it has media, and whether several."""
    missing = {key: rule for key, rule in rules.items() if key not in table.column_names}
    columns: dict[str, list[Any]] = {key: [] for key in missing}
    for cell in cells_of(table, turns) if missing else ():
        turn_list = _turns(cell)
        for key, (is_medium, has_several) in missing.items():
            values = [turn[key] for turn in (turn_list if is_medium else turn_list[-1:]) if not is_empty(turn.get(key))]
            columns[key].append((values if has_several else values[-1]) if values else None)
    for key, values in columns.items():
        table = table.add_column(key, _alike(values))
    return table


def _with_media(table: Any, turns: str, modality: str, column: str, has_several: bool) -> Any:
    """The table with a column of the media of one modality from the contents of its turns."""
    if column in table.column_names:
        return table
    cells = [
        [file for turn in _turns(cell) for kind, file in media_of_parts(turn) if kind == modality]
        for cell in cells_of(table, turns)
    ]
    if any(isinstance(file, Mapping) for files in cells for file in files):  # a column has one type
        cells = [[f if isinstance(f, Mapping) else {"bytes": None, "path": f} for f in files] for files in cells]
    if has_several or any(len(files) > 1 for files in cells):  # a list of one is that medium
        return table.add_column(column, [files or None for files in cells])
    return table.add_column(column, [files[0] if files else None for files in cells])


def _alike(values: list[Any]) -> list[Any]:
    """Cells of one type, as a column must be: where they are not, their texts."""
    import pyarrow as pa

    if len({type(value) for value in values if value is not None}) < 2:
        try:
            pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):  # such as a list of a text and a number
            pass
        else:
            return values
    return [None if value is None else str(value) for value in values]


def _misspelt(keys: Collection[str], known_keys: Collection[str], media: Sequence[str], *, where: str) -> Iterator[str]:
    """Keys of turns that nothing reads and that are nearly called as a medium is."""
    usual = {name: medium for medium in media for name in USUAL_NAMES.get(medium, (medium,))}
    for key in keys:
        near = difflib.get_close_matches(key.lower(), usual, n=1, cutoff=_NEAR)
        if near and key not in (*known_keys, *usual, *SPEAKERS, *WORDS):
            medium = usual[near[0]]
            yield (
                f"{where}: turns have the key {key}, which nothing reads\n"
                f"    if it holds what {near[0]} would, set data.columns.{medium}={key}"
            )
