"""Atomic replacement of files: a temporary file in the same folder is synced and renamed.

After a kill, a power failure or a full disk, either the old content or the new one is there. `mmtrain.io.run_files`
uses it.
"""

import errno
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmtrain.errors import WriteError
from mmtrain.io.os_errors import explaining

READY = ".ready"  # a folder of complete files that only have to be moved up
_OPEN: set[str] = set()  # names of the part files that this process is writing
_ABANDONED = 3600.0  # seconds after which a temporary file of another machine counts as abandoned
# ---------------------------------------------------------------------------- writing


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file, which replaces `path` when it is complete and on the disk.

    If writing fails, the temporary file is removed and `path` is unchanged. A link is followed.

    Args:
        path: path of the file; its folder is created.

    Raises:
        OSError: as raised by the file system; `replacing` explains it.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # /dev/null, a pipe: written directly
        yield path
        return
    _remove_parts(path)
    part = _part_of(path)
    try:
        _OPEN.add(part.name)
        part.touch()
        mode = part.stat().st_mode  # safetensors creates its own file, readable only by the owner
        yield part
        part.chmod(mode)
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
        _OPEN.discard(part.name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `atomic_write`, for writers that take a path. A full or read-only disk is explained.

    The temporary file ends in .part, so writers that derive the format from the ending need it as an argument.

    Raises:
        WriteError: if the file cannot be written.
    """
    with explaining(path), atomic_write(path) as part:
        yield part


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder. Its files replace those of the same names in `folder`, all or none.

    Other files of `folder` are kept. After a kill while files are moved, the rest is in READY. `current` finds it
    there, and the next call moves it.

    Args:
        folder: created if it does not exist.

    Raises:
        WriteError: if a file cannot be written.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "files"
        _remove_parts(files)
        part, ready = _part_of(files), folder / READY
        try:
            _OPEN.add(part.name)
            part.mkdir()
            yield part
            for path in [*part.rglob("*"), part]:
                _sync(path)
            _move_up(ready)
            part.rename(ready)
            _sync(folder)
            _move_up(ready)
        except WriteError as error:  # for a file in it
            raise WriteError(str(error).replace(str(part), str(folder))) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
            _OPEN.discard(part.name)


def _move_up(ready: Path) -> None:
    if not ready.is_dir():
        return
    for path in sorted(ready.iterdir()):
        target = ready.parent / path.name
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    ready.rmdir()
    _sync(ready.parent)


def current(folder: Path, name: str) -> Path:
    """The path of a file that `replacing_files` wrote, also after a kill."""
    moved = folder / READY / name
    return moved if moved.exists() else folder / name


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stem(path: Path) -> str:
    """The beginning of a temporary file's name: short enough for long file names."""
    return "." + path.name.encode()[:80].decode(errors="ignore") + "."


def _host() -> str:
    return re.sub(r"\W", "", platform.node())[:40] or "host"


def _part_of(path: Path) -> Path:
    return path.with_name(f"{_stem(path)}{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def _remove_parts(path: Path) -> None:
    """Remove temporary files of killed writers of `path`."""
    if not path.parent.is_dir():
        return
    for part in path.parent.iterdir():
        named = part.name.startswith(_stem(path)) and part.name.endswith(".part")
        if named and _is_abandoned(part):
            with suppress(OSError):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _is_abandoned(part: Path) -> bool:
    """Whether the process of a temporary file is gone. On another machine, only the age of the file is known."""
    writer = re.search(r"\.(\w+)-(\d+)-[0-9a-f]{8}\.part$", part.name)
    if writer is not None and writer[1] == _host():
        if int(writer[2]) == os.getpid():  # in a restarted container, another process had this id
            return part.name not in _OPEN
        return not _is_alive(int(writer[2]))
    with suppress(OSError):
        return time.time() - part.stat().st_mtime > _ABANDONED
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
