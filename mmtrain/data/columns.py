"""Which column of a table holds what: by its usual name, or as the user says."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mmtrain.errors import ConfigError

# The names that people give to the columns, by what they hold; the first that a table has is taken.
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image",
        "img",
        "picture",
        "photo",
        "image_path",
        "image_file",
        "jpg",
        "png",
        "webp",
        "file_name",
        "filename",
    ),
    "text": (
        "caption",
        "captions",
        "text",
        "sentence",
        "sentences",
        "title",
        "description",
        "txt",
        "transcript",
        "question",
    ),
    "audio": ("audio", "speech", "sound", "wav", "audio_path", "audio_file", "mp3", "flac", "m4a"),
    "video": ("video", "clip", "film", "video_path", "video_file", "mp4"),
    "vector": ("vector", "features", "tabular"),
    "sequence": ("sequence", "feature_path", "features_path", "npy"),
    "label": ("label", "class", "category", "target", "cls"),
    "labels": ("labels", "classes", "categories", "tags"),
    "number": ("number", "score", "rating", "value", "price"),
    "answer": ("answer", "answers"),
    "caption": ("caption", "captions", "text", "sentence", "sentences", "title", "description", "txt", "transcript"),
}
Column = str | list[str]


def find_columns(there: Sequence[str], wanted: Mapping[str, Column | None], *, where: str) -> dict[str, Column]:
    """Which column holds what.

    Args:
        there: the columns of the table.
        wanted: by name of an input or target: its column (several, to make one vector of), or None to look for the
            usual names.
        where: the table, for messages.

    Returns:
        The column of each that the table has.

    Raises:
        ConfigError: for a named column that is not there.
    """
    columns: dict[str, Column] = {}
    for name, column in wanted.items():
        if column is None:
            usual = next((c for c in USUAL_NAMES.get(name, (name,)) if c in there), None)
            if usual is not None:
                columns[name] = usual
            continue
        for part in [column] if isinstance(column, str) else column:
            if part not in there:
                raise _no_column(name, part, there, where)
        columns[name] = column
    return columns


def _no_column(name: str, column: str, there: Sequence[str], where: str) -> ConfigError:
    near = difflib.get_close_matches(column, there, n=1)
    mend = f"set data.columns.{name}={near[0]}" if near else f"set data.columns.{name} to one of them, or to null"
    return ConfigError(f"data.columns.{name} = {column}, but {where} has the columns {', '.join(there)}\n    {mend}")


def cell_of(cells: Mapping[str, Any], column: Column | None) -> Any:
    """What a row has in a column, or in several as a list; None for a column that the table lacks."""
    if column is None:
        return None
    return cells.get(column) if isinstance(column, str) else [cells.get(part) for part in column]


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, blank text, or a list or a dict of such.

    >>> [is_empty(v) for v in (None, "", " ", [], [None, ""], {"bytes": None, "path": None}, 0, "a", [0.0])]
    [True, True, True, True, True, True, False, False, False]
    """
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return value != value
    if isinstance(value, list | tuple):
        return all(is_empty(part) for part in value)
    if isinstance(value, Mapping):
        return all(is_empty(part) for part in value.values())
    return False
