"""Class folders as a table: DIR/CLASS/file, or DIR/SPLIT/CLASS/file, of pictures, sounds or films."""

import os
from pathlib import Path
from typing import Any

from mmtrain.data.tables import split_name

KINDS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"),
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
}
_KIND_OF = {ending: kind for kind, endings in KINDS.items() for ending in endings}


def read_class_folders(root: Path) -> dict[str | None, Any] | None:
    """The tables of a folder of class folders; None when it is not one.

    Returns:
        By split, a `datasets.Dataset` with the columns id, label and image, audio or video; under None when the
        folders of the root are the classes. The id is the path, and the path is relative to the root.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = {p: split_name(p.name) for p in folders}
    if folders and all(splits.values()):
        tables = {splits[p]: _table(root, p) for p in folders}
    else:
        tables = {None: _table(root, root)}
    return tables if all(table is not None for table in tables.values()) else None


def _table(root: Path, folder: Path) -> Any:
    import datasets

    rows = [
        (path.relative_to(root).as_posix(), label.name, kind)
        for label in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        for path in _files(label)
        if (kind := _KIND_OF.get(path.suffix.lower())) is not None
    ]
    if not rows:
        return None
    columns: dict[str, list[str | None]] = {"id": [r[0] for r in rows], "label": [r[1] for r in rows]}
    for kind in KINDS:
        if any(r[2] == kind for r in rows):
            columns[kind] = [r[0] if r[2] == kind else None for r in rows]
    return datasets.Dataset.from_dict(columns)


def _files(folder: Path) -> list[Path]:
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)
