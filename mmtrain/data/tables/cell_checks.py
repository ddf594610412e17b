"""Checks of the first rows of training: cells that do not fit their input or target. Nothing heavy is imported.

A wrong column is reported before anything is learned from it, and before a model is built.
"""

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmtrain.data.tables.columns import content_of, is_empty
from mmtrain.data.tables.paths import shown_path
from mmtrain.data.tables.scale import in_short
from mmtrain.errors import ConfigError

FIRST_ROWS = 1000  # that are checked
_FILES = 100  # whose existence is checked
SEVERAL_PICTURES = "read them by input@data.inputs.image=images encoder/image=pictures"
NO_FILES = ("text", "vector", "dialogue")  # inputs whose cells are never paths
# How the project's own inputs and targets read cells. Cells of other classes are not checked.
READ_AS: Mapping[str, str] = {
    "mmtrain.data.inputs.image.ImageInput": "image",
    "mmtrain.data.inputs.text.TextInput": "text",
    "mmtrain.data.inputs.audio.AudioInput": "audio",
    "mmtrain.data.inputs.video.VideoInput": "video",
    "mmtrain.data.inputs.sequence.SequenceInput": "sequence",
    "mmtrain.data.inputs.vector.VectorInput": "vector",
    "mmtrain.data.inputs.turns.TurnsInput": "dialogue",
    "mmtrain.data.targets.text.TextTarget": "text",
    "mmtrain.data.targets.label.ClassLabel": "class",
    "mmtrain.data.targets.multilabel.MultiLabel": "classes",
    "mmtrain.data.targets.number.Number": "number",
    "mmtrain.data.targets.answer.Answer": "answer",
}


def read_as(part: object) -> str | None:
    """How an input or target reads cells."""
    return READ_AS.get(f"{type(part).__module__}.{type(part).__qualname__}")


def check_cells(name: str, kind: str | None, cells: Iterable[Any], *, column: str, where: str, folder: Path) -> None:
    """Check the first non-empty cells of a column. A bad cell among good ones is quarantined when it is read.

    Args:
        name: of the input or target.
        kind: how it reads them, of `READ_AS`.
        cells: of the column, in order; of files in the table itself, only the first is read.
        column: its name.
        where: the table, for messages.
        folder: what relative paths start from.

    Raises:
        ConfigError: if none of the first cells is usable, or none of the first files exists.
    """
    filled = (cell for cell in islice(cells, FIRST_ROWS) if not is_empty(cell))
    first = next(filled, None)
    if first is None:
        return
    wrong = _what_it_is_not(kind, first)
    if wrong is not None and all(_what_it_is_not(kind, cell) for cell in islice(filled, _FILES)):
        what, fix = wrong
        raise ConfigError(
            f"{where}: the column {column} holds {_shown(first)}, which is no {what}\n"
            f"    {fix.format(name=name, column=column)}{_of_parts(name, first, column, where)}"
        )
    if wrong is None and kind is not None and kind in _FILE_KINDS and isinstance(_content(first), str):
        _check_files(name, kind, [first, *islice(filled, _FILES - 1)], column, where, folder)


_FILE_KINDS: Mapping[str, str] = {
    "image": "pictures",
    "audio": "sounds",
    "video": "films",
    "sequence": "arrays",
}


def _what_it_is_not(kind: str | None, cell: Any) -> tuple[str, str] | None:
    """What a cell should be and is not, and the fix; None if it may be right."""
    content = content_of(cell)
    if kind == "text":
        texts = cell if isinstance(cell, list | tuple) else [cell]
        if any(isinstance(text, Mapping | bytes | list) for text in texts):
            return "text", "name the column of texts by data.columns.{name}"
    elif kind == "class":
        if isinstance(cell, list | tuple | Mapping | bytes):
            several = ", or learn several by task=multilabel data.columns.labels={column}"
            advice = "name a column with one class a row by data.columns.{name}"
            return "class", advice + (several if isinstance(cell, list | tuple) else "")
    elif kind in ("image", "audio", "video"):
        if kind == "image" and isinstance(content, list) and sum(isinstance(part, str) for part in content) > 1:
            fix = f"if these are paths, {SEVERAL_PICTURES}; else name the column of pictures by data.columns.{{name}}"
            return "single picture", fix
        if isinstance(content, int | float) or (isinstance(content, Mapping) and "array" not in content):
            one = {"image": "picture", "audio": "sound", "video": "film"}[kind]
            return one, f"name the column of {_FILE_KINDS[kind]}, or of paths to them, by data.columns.{{name}}"
    return None


def _of_parts(name: str, cell: Any, column: str, where: str) -> str:
    """How parts of objects become columns, where the table is a file for which a line of Python does it."""
    key = (
        next((key for key, part in cell.items() if isinstance(part, str)), None) if isinstance(cell, Mapping) else None
    )
    if key is None or not where.endswith((".parquet", ".jsonl")):
        return ""
    if where.endswith(".parquet"):
        program = f"import pyarrow.parquet as p; p.write_table(p.read_table('{where}').flatten(), '{where}')"
        command = f'python -c "{program}"'
    else:
        parts = f"{{**r, **{{'{column}.' + k: v for k, v in (r.get('{column}') or {{}}).items()}}}}"
        program = f"import json; [print(json.dumps({parts})) for r in map(json.loads, open('{where}'))]"
        command = f'python -c "{program}" > {where}.new && mv {where}.new {where}'
    return f"\n    or make columns of its parts: {command}, then set data.columns.{name}={column}.{key}"


def _content(cell: Any) -> Any:
    """What a cell holds, also of a list of one."""
    return content_of(cell[0] if isinstance(cell, list) and len(cell) == 1 else cell)


def _shown(cell: Any) -> str:
    return f"{len(cell)} bytes" if isinstance(cell, bytes) else in_short(cell)


def _check_files(name: str, kind: str, cells: list[Any], column: str, where: str, folder: Path) -> None:
    paths = [_content(cell) for cell in cells]
    # not Path.exists: it raises for a text that is too long to be a path
    if all(isinstance(path, str) and not os.path.exists(folder / path) for path in paths):  # noqa: PTH110
        count = f"none of the first {len(paths)} files is there" if len(paths) > 1 else "the only file is not there"
        near = _same_name(paths[0], folder)
        if near is not None:
            raise ConfigError(
                f"{where}: of the column {column} {count}, such as {shown_path(folder / paths[0])}\n"
                f"    write the paths from {folder} on: {near} in place of {_quoted(paths[0])}"
            )
        above = folder.absolute().parent
        if Path(where).is_file() and _same_name(paths[0], above) is not None:
            raise ConfigError(
                f"{where}: of the column {column} {count}, such as {shown_path(folder / paths[0])}\n"
                f"    set what the paths start from: data.train={where} data.root={above}"
            )
        raise ConfigError(
            f"{where}: of the column {column} {count}, such as {shown_path(folder / paths[0])}\n"
            f"    correct the paths, which start from {folder}, or name the column of {_FILE_KINDS[kind]} by"
            f" data.columns.{name}"
        )


def _quoted(path: str) -> str:
    """A path in a message, in quotes where spaces at its ends would not be seen."""
    return path if path == path.strip() else repr(path)


def _same_name(path: str, folder: Path) -> Path | None:
    """A file of this name in the folder or in one inside it, from the folder on; spaces and case may differ."""
    written = Path(path.strip().replace("\\", "/"))
    if os.path.isfile(folder / written):  # noqa: PTH113 - written on Windows, or with a space at an end
        return written
    places = [folder, *islice((p for p in folder.iterdir() if p.is_dir()), _FILES)] if folder.is_dir() else []
    result = (place / written.name for place in places)
    near = next((p.relative_to(folder) for p in result if os.path.isfile(p)), None)  # noqa: PTH113 - as above
    if near is not None or not os.path.isdir((folder / written).parent):  # noqa: PTH112 - as above
        return near
    siblings = islice((folder / written).parent.iterdir(), FIRST_ROWS)
    same = (p for p in siblings if p.name.casefold() == written.name.casefold() and p.is_file())
    return next((p.relative_to(folder) for p in same), None)
