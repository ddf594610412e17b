"""Cache folders for downloads, drawings and converted tables, and errors when one cannot be written."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmtrain.errors import ConfigError, WriteError

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that reading never raises


@contextmanager
def writing_cache(folder: Path, variable: str) -> Iterator[None]:
    """Explain a cache that cannot be written.

    Args:
        folder: what is created in it.
        variable: environment variable that sets another folder.

    Raises:
        WriteError: if it cannot be written.
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
    """The message if the `datasets` library cannot write its cache; None if the table is the cause.

    Args:
        error: the error of the library.
        table: the table that was read.
    """
    from datasets import config

    folders = [Path(config.HF_DATASETS_CACHE), Path(config.HF_CACHE_HOME)]
    reason = _reason(error, [folder.expanduser() for folder in folders], table)
    return None if reason is None else _refused(folders[0], reason, "HF_HOME (or HF_DATASETS_CACHE)")


def _refused(folder: Path, reason: str, variable: str) -> WriteError:
    return WriteError(
        f"{folder}: this cache cannot be written: {reason}\n"
        f"    fix: set {variable} to a folder with write permission, on a disk with space"
    )


def _reason(error: BaseException | None, folders: Sequence[Path], table: Path | None = None) -> str | None:
    """Why one of the folders cannot be written, from an error and its causes; None if that is not the reason."""
    while error is not None:
        if isinstance(error, OSError):
            named = None if error.filename is None else Path(os.fsdecode(error.filename))
            if named != table and (error.errno in _OF_WRITING or (named is not None and _is_of(named, folders))):
                return error.strerror or str(error)
            if error.errno is None and "Not enough disk space" in str(error):  # `datasets` checks before it writes
                return str(error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return None


def _is_of(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path is in one of the folders, or one of them is in it, because a parent folder may be missing."""
    return any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in folders)
