"""Folders that keep what was downloaded, drawn or converted, and what to set when one cannot be written."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmtrain.errors import ConfigError, WriteError

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # nothing that is read gives them


@contextmanager
def writing_cache(folder: Path, variable: str) -> Iterator[None]:
    """Explain a cache that cannot be written.

    Args:
        folder: what is made in it.
        variable: of the environment, which names another.

    Raises:
        WriteError: when it cannot be.
    """
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        reason = _reason(error, [folder])
        if reason is None:
            raise
        raise _refused(folder, reason, variable) from error


def datasets_cache_error(error: BaseException, table: Path | None) -> WriteError | None:
    """The message when the `datasets` library could not write its cache; None when the table is at fault.

    Args:
        error: what it raised.
        table: that it was reading.
    """
    from datasets import config

    folders = [Path(config.HF_DATASETS_CACHE), Path(config.HF_CACHE_HOME)]
    reason = _reason(error, [folder.expanduser() for folder in folders], table)
    return None if reason is None else _refused(folders[0], reason, "HF_HOME (or HF_DATASETS_CACHE)")


def _refused(folder: Path, reason: str, variable: str) -> WriteError:
    return WriteError(
        f"{folder}: this cache cannot be written: {reason}\n"
        f"    fix: set {variable} to a folder that you can write in, on a disk with room"
    )


def _reason(error: BaseException | None, folders: Sequence[Path], table: Path | None = None) -> str | None:
    """Why one of the folders cannot be written, of an error and what caused it; None when that was not the reason."""
    while error is not None:
        if isinstance(error, OSError):
            named = None if error.filename is None else Path(os.fsdecode(error.filename))
            if named != table and (error.errno in _OF_WRITING or (named is not None and _is_of(named, folders))):
                return error.strerror or str(error)
            if error.errno is None and "Not enough disk space" in str(error):  # `datasets` asks before it writes
                return str(error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return None


def _is_of(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path is in one of the folders, or one of them in it: a folder above may be the one that is missing."""
    return any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in folders)
