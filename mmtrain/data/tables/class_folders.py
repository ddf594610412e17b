"""Class folders as a table: DIR/CLASS/file, or DIR/SPLIT/CLASS/file, of pictures, sounds or films."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mmtrain.data.tables.paths import refuse_outside
from mmtrain.data.tables.tables import split_name
from mmtrain.errors import ConfigError

PICTURES = {  # of the formats that image_file.py opens
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "ICO": (".ico",),
}
KINDS = {
    "image": tuple(chain.from_iterable(PICTURES.values())),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"),
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
}
KIND_OF = {ending: kind for kind, endings in KINDS.items() for ending in endings}


Columns = Mapping[str, list[str | None]]
_OF_SPLIT = re.compile(r"(train|val|valid|validation|dev|test|training|testing)([\W_\d].*)?", re.IGNORECASE)
_LOOKED_AT = 100  # entries of a folder


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or what macOS and Python leave.

    >>> [is_hidden(name) for name in (".DS_Store", "._a.jpg", "__MACOSX", "cat")]
    [True, True, True, False]
    """
    return name.startswith(".") or name in ("__MACOSX", "__pycache__")


def folders_in(root: Path) -> list[Path]:
    """The folders that are not hidden."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))


def split_folders(root: Path) -> dict[str, Path]:
    """By split, the folder that is called so.

    Raises:
        ConfigError: for two of one split.
    """
    results: dict[str, Path] = {}
    for folder in folders_in(root):
        split = split_name(folder.name)
        if split is not None and split in results:
            both = f"{results[split].name} and {folder.name}"
            raise ConfigError(f"{root} has the folders {both}: which is the {split} split?\n    keep one")
        if split is not None:
            results[split] = folder
    return results


def folders_with_files(root: Path) -> list[Path]:
    """The folders that can be read as classes or as splits of classes: two or more, or train with two or more in it.

    Only the first entries of a folder are read.
    """
    splits = list(split_folders(root).values())
    of_train = split_folders(root).get("train")
    if of_train is not None and sum(map(_has_files, folders_in(of_train))) > 1:
        return splits
    results = [folder for folder in folders_in(root) if _has_files(folder)]
    return results if len(results) > 1 else []


def kinds_in(folders: Sequence[Path]) -> set[str]:
    """Image, audio or video: what the first files of folders are, or of the folders in them."""
    places = [place for folder in folders for place in (folder, *islice(folders_in(folder), _LOOKED_AT))]
    names = (p.suffix.lower() for place in places for p in islice(place.iterdir(), _LOOKED_AT))
    return {KIND_OF[ending] for ending in names if ending in KIND_OF}


def _has_files(folder: Path) -> bool:
    return any(p.suffix.lower() in KIND_OF for p in islice(folder.iterdir(), _LOOKED_AT))


def read_class_folders(
    root: Path, make: Callable[[Columns], Any], *, most: int | None = None
) -> tuple[dict[str | None, Any], list[str]] | None:
    """The tables of a folder of class folders; None when it is not one.

    Where there are folders of splits, train among them, other folders next to them are not read. A class may be called
    train, too: then its folder holds files and no folders of classes.

    Args:
        root: the folder, as `data_folder` gives it.
        make: a table of columns.
        most: files of a table, the first ones; None for all.

    Returns:
        By split, a table with the columns id, label and image, audio or video; under None when the folders of the root
        are the classes. The id is the path, and the path is relative to the root. Then notes of what is not read.

    Raises:
        ConfigError: when the folder of a class or of a split is a link that leads out of the root, for two folders of
            one split, and for a split without folders of classes next to those that have some.
    """
    folders = [_checked(root, folder) for folder in folders_in(root)]
    named = [folder for folder in folders if split_name(folder.name) is not None]
    unread: Counter[str] = Counter()
    of_splits = {folder: _columns(root, folder, most, unread) for folder in named}
    has_train = any(split_name(folder.name) == "train" and of_splits[folder] for folder in named)
    if named and (has_train or (len(named) == len(folders) and any(of_splits.values()))):
        for folder, columns in of_splits.items():
            if not columns:
                raise _no_classes(root, folder)
        others = [folder.name for folder in folders if folder not in named]
        results: dict[str | None, Columns] = {split: of_splits[folder] for split, folder in split_folders(root).items()}
        notes = [f"{root}: {', '.join(others)} is not read: the splits are train, val and test"] if others else []
    else:
        unread.clear()
        results, notes = {None: _columns(root, root, most, unread)}, []
    if not all(results.values()):
        return None
    if None in results:
        _refuse_split_names(root, {str(label) for label in results[None]["label"]})
    if unread:
        endings = ", ".join(f"{count} {ending}" for ending, count in unread.most_common(8))
        notes.append(f"{root}: files in folders of classes are not read for their endings: {endings}")
    return {split: make(columns) for split, columns in results.items()}, notes


def _refuse_split_names(root: Path, labels: Collection[str]) -> None:
    """Refuse classes that are all named like splits, such as train2017 and val2017 of COCO.

    Raises:
        ConfigError: with what the folder next to them offers.
    """
    if not all(_OF_SPLIT.fullmatch(label) for label in labels):
        return
    names = ", ".join(sorted(labels))
    tables = sorted(p for p in root.rglob("*.json") if not is_hidden(p.name) and len(p.relative_to(root).parts) < 3)
    words = {split: [p for p in tables if split in p.stem.lower()] for split in ("train", "val")}
    files = " ".join(f"data.{split}={result[0]}" for split, result in words.items() if result)
    fix = (
        f"{files} data.root={root}"
        if files
        else f"write {root}/train.csv with a line for each file, such as image,label"
    )
    raise ConfigError(f"{root}: the folders {names} are named like splits, not like classes\n    fix: {fix}")


def _no_classes(root: Path, folder: Path) -> ConfigError:
    content = [p.name for p in sorted(folder.iterdir()) if not is_hidden(p.name)]
    what = ", ".join(content[:3]) + (" ..." if len(content) > 3 else "") if content else "nothing"
    return ConfigError(
        f"{folder} has no folder a class, as the other splits of {root} have; it holds {what}\n"
        f"    put its files into folders {folder}/CLASS, or move it out of {root}"
    )


def _checked(root: Path, folder: Path) -> Path:
    refuse_outside(root, folder)
    return folder


def _columns(root: Path, folder: Path, most: int | None, unread: Counter[str]) -> Columns:
    """The files in the folders of classes; of others the endings are counted."""
    labels = (_checked(root, label) for label in folders_in(folder))
    files = ((path, label.name) for label in labels for path in _files(label, unread))
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


def _files(folder: Path, unread: Counter[str]) -> Iterator[Path]:
    """Those that can be pictures, sounds or films, in order."""
    results = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        results += [Path(place) / name for name in names if not is_hidden(name)]
    unread.update(path.suffix.lower() or "without" for path in results if path.suffix.lower() not in KIND_OF)
    yield from sorted(path for path in results if path.suffix.lower() in KIND_OF)
