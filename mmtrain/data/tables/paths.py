"""Which files the cells of a table may name: regular files inside the data folder.

A table can come from a stranger. A path in it that is absolute, climbs up by `..` or follows a symbolic link must not
make the program read a file elsewhere on this machine. Every reader calls `checked_path` directly before it opens a
file, so that the check does not depend on where the path was written: in a table, in the JSON of a tar, or in a turn.
"""

import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmtrain.errors import ConfigError, SampleError

if TYPE_CHECKING:
    _LocalPath = Path
else:
    _LocalPath = type(Path())  # Path itself can be subclassed from Python 3.12 on

_SHOWN = 120  # characters of a path in a message


class UnconfinedFolder(_LocalPath):
    """A data folder whose paths may lead anywhere: the user set `data.restrict_paths=false`."""


class RemoteFolder(_LocalPath):
    """The data folder of shards on a server: no path in them names a file of this machine."""


class PartPath(str):
    """A path in a part of a mixture: it starts from the folder of the mixture and must stay in that of the part.

    Args:
        path: as the readers get it.
        root: the folder of the part.
        part: its name, for messages.
    """

    root: Path
    part: str

    def __new__(cls, path: str, root: Path, part: str) -> "PartPath":
        """A string with two attributes."""
        made = super().__new__(cls, path)
        made.root, made.part = root, part
        return made

    def __reduce__(self) -> tuple[type["PartPath"], tuple[str, Path, str]]:
        """What pickle needs to make it again."""
        return PartPath, (str(self), self.root, self.part)


def data_folder(folder: Path, *, restrict_paths: bool) -> Path:
    """The folder as readers take it: an `UnconfinedFolder` where its paths may lead out.

    Args:
        folder: what relative paths start from.
        restrict_paths: whether they must stay in it.
    """
    if not restrict_paths:
        return UnconfinedFolder(folder)
    return folder if folder.parts else folder.absolute()  # Path() itself would restrict_paths nothing


def checked_path(folder: Path, path: str | Path) -> Path:
    """The file that a cell names, to be opened at once.

    A missing file is not refused here; it is reported when it is opened. An empty folder, `Path()`, confines
    nothing: there the caller names files himself.

    Args:
        folder: of the data, as `data_folder` gives it.
        path: relative to the folder, or absolute and inside it.

    Raises:
        SampleError: when it leads out of the folder, or is no regular file: a folder, a pipe, a device.
    """
    place = folder / path
    try:
        mode = _mode(_root(folder, path), place, path)
    except (FileNotFoundError, NotADirectoryError):
        return place
    except ValueError as error:  # a NUL, or half a character
        raise SampleError(shown_path(path), f"is no path: {error}") from error
    except OSError as error:
        raise SampleError(shown_path(path), f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is no regular file, but a pipe, a socket or a device"
        raise SampleError(shown_path(path), what)
    return place


def leads_out(folder: Path, path: str | Path) -> bool:
    """Whether a path leads out of the folder, with its links followed; it need not exist."""
    root = _root(folder, path)
    if _is_open(root):
        return False
    place = str(folder / path)
    try:
        return isinstance(root, RemoteFolder) or (_mode_below(str(root), place) is None and not _is_inside(root, place))
    except (OSError, ValueError):  # nothing there: by its words it is inside
        return False


def refuse_outside(folder: Path, file: Path) -> None:
    """Refuse a table, or a folder of files, that leads out of the data folder.

    Args:
        folder: of the data, as `data_folder` gives it.
        file: of the table.

    Raises:
        ConfigError: with where it leads.
    """
    if leads_out(folder, file.absolute()):
        real = os.path.realpath(file)
        how = f"leads to {real}" if real != str(file) else "is named"
        raise ConfigError(
            f"{file} {how}, which is outside of the data folder {folder}\n"
            "    move it into the folder, or allow it with data.restrict_paths=false"
        )


def _root(folder: Path, path: str | Path) -> Path:
    return path.root if isinstance(path, PartPath) else folder


def _is_open(root: Path) -> bool:
    return isinstance(root, UnconfinedFolder) or not root.parts


def _mode(root: Path, place: Path, path: str | Path) -> int:
    """The mode of the file that a path leads to, by `stat`."""
    text = str(place)
    if _is_open(root):
        return os.stat(text).st_mode  # noqa: PTH116 - a Path would be made a string again
    if isinstance(root, RemoteFolder):
        raise SampleError(shown_path(path), f"names a local file, but its shard is on a server; {_fix(path)}")
    mode = _mode_below(str(root), text)
    if mode is not None:
        return mode
    if not _is_inside(root, text):
        by_link = os.path.normpath(text).startswith(os.path.normpath(root) + os.sep)
        what = "follows a link out of" if by_link else "leads out of"
        raise SampleError(shown_path(path), f"{what} the data folder {root}; {_fix(path)}")
    return os.stat(text).st_mode  # noqa: PTH116 - as above


def _mode_below(root: str, place: str) -> int | None:
    """The mode of a file below a folder; None if its path has a link or `..`, or is of another folder.

    It reads each name once. `os.path.realpath` would read those of the root again for every file.
    """
    start = root.rstrip(os.sep) + os.sep
    if not place.startswith(start):
        return None
    names = place[len(start) :].split(os.sep)  # noqa: PTH206 - it takes a third of the time of Path.parts
    if ".." in names:
        return None
    mode, at = 0, start
    for name in names:
        at += name
        mode = os.lstat(at).st_mode
        if stat.S_ISLNK(mode):
            return None
        at += os.sep
    return mode


def _is_inside(root: Path, place: str) -> bool:
    return (os.path.realpath(place) + os.sep).startswith(_real_roots(str(root.absolute())))


@lru_cache(maxsize=256)
def _real_roots(root: str) -> tuple[str, ...]:
    """Where files of a folder may really lie: in it; of a data set in the cache of the hub, also among its blobs.

    There DATASET/snapshots/COMMIT/a.png is a link to DATASET/blobs/HASH.
    """
    real = Path(root).resolve()
    repositories = [p.parent.parent for p in (real, *real.parents) if p.parent.name == "snapshots"]
    blobs = [p / "blobs" for p in repositories if p.name.startswith("datasets--")]
    results = [real, *(p for p in blobs if p.is_dir() and not p.is_symlink())]
    return tuple(str(place).rstrip(os.sep) + os.sep for place in results)


def _fix(path: str | Path) -> str:
    key = f"data.parts.{path.part}.restrict_paths" if isinstance(path, PartPath) else "data.restrict_paths"
    return f"set {key}=false to allow it"


def shown_path(path: str | Path) -> str:
    """A path in a message: printable, and not too long."""
    text = str(path)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
