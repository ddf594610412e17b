"""Class folders as a table: DIR/CLASS/file, or DIR/SPLIT/CLASS/file, of pictures, sounds or films."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmtrain.data.paths import refuse_outside
from mmtrain.data.tables import split_name

KINDS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"),
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
}
KIND_OF = {ending: kind for kind, endings in KINDS.items() for ending in endings}


Columns = Mapping[str, list[str | None]]


def read_class_folders(
    root: Path, make: Callable[[Columns], Any], *, most: int | None = None
) -> dict[str | None, Any] | None:
    """The tables of a folder of class folders; None when it is not one.

    Args:
        root: the folder, as `data_folder` gives it.
        make: a table of columns.
        most: files of a table, the first ones; None for all.

    Returns:
        By split, a table with the columns id, label and image, audio or video; under None when the folders of the root
        are the classes. The id is the path, and the path is relative to the root.

    Raises:
        ConfigError: when the folder of a class or of a split is a link that leads out of the root.
    """
    folders = _folders(root, root)
    splits = {p: split_name(p.name) for p in folders}
    if folders and all(splits.values()):
        found = {splits[p]: _columns(root, p, most) for p in folders}
    else:
        found = {None: _columns(root, root, most)}
    return {split: make(columns) for split, columns in found.items()} if all(found.values()) else None


def _columns(root: Path, folder: Path, most: int | None) -> Columns:
    files = ((path, label.name) for label in _folders(root, folder) for path in _files(label))
    rows = [
        (path.relative_to(root).as_posix(), label, KIND_OF[path.suffix.lower()]) for path, label in islice(files, most)
    ]
    if not rows:
        return {}
    columns: dict[str, list[str | None]] = {"id": [r[0] for r in rows], "label": [r[1] for r in rows]}
    for kind in KINDS:
        if any(r[2] == kind for r in rows):
            columns[kind] = [r[0] if r[2] == kind else None for r in rows]
    return columns


def _folders(root: Path, folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for place in found:
        refuse_outside(root, place)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Those that can be pictures, sounds or films, in order."""
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    yield from sorted(path for path in found if path.suffix.lower() in KIND_OF)
