"""Errors of the operating system that a person can fix: a full disk, a missing permission, a name that is too long."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtrain.errors import ConfigError, WriteError

_AGAIN = "then give the same command again (resume=auto goes on with a run)"
FIXES = {
    errno.ENOSPC: f"free space on that disk, or name a folder on another one; {_AGAIN}",
    errno.EDQUOT: f"remove files of yours from that disk, or name a folder on another one; {_AGAIN}",
    errno.EROFS: f"mount it with write access, or name a folder on another disk; {_AGAIN}",
    errno.EACCES: "give yourself access (chmod, chown), or name a folder of your own",
    errno.EPERM: "give yourself access (chmod, chown), or name a folder of your own",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: f"check the disk (dmesg), or name a folder on another one; {_AGAIN}",
    errno.ESTALE: f"mount the network disk again; {_AGAIN}",
    errno.EMFILE: f"allow more open files (ulimit -n 65536), or lower data.num_workers; {_AGAIN}",
}
_NAMED = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


def environment_errno(error: BaseException | None) -> int | None:
    """The errno of a full disk, a missing permission and the like; None for an error that is none of these.

    Libraries in Rust and C++ raise classes of their own, so their words count too.

    >>> environment_errno(RuntimeError("I/O error: No space left on device (os error 28)"))
    28
    """
    while error is not None:
        text = str(error)
        told = re.search(r"(?:os error|\[Errno) (\d+)", text)  # of Rust; of Python in a process that loads data
        number = error.errno if isinstance(error, OSError) else None
        number = int(told[1]) if number is None and told else number
        number = number or next((known for words, known in _NAMED.items() if words in text), None)
        if number in FIXES:
            return number
        error = error.__cause__
    return None


def explanation(error: BaseException, where: str) -> str | None:
    """What a person reads of such an error: the file, why, and the fix; None for an error that is none of these.

    Args:
        error: what the file system, or a library, raised.
        where: stands for the file when the error names none.
    """
    number = environment_errno(error)
    named = error.filename if isinstance(error, OSError) else None
    if number is None or (named is None and number in (errno.EACCES, errno.EPERM)):  # to signal, to listen on a port
        return None
    return f"{named or where}: {os.strerror(number)}\n    fix: {FIXES[number]}"


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what the file system raises into a WriteError with the fix.

    Args:
        path: what is being written.

    Raises:
        WriteError: when it cannot be.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        number = environment_errno(error)
        if number is None and not isinstance(error, OSError):
            raise
        told = error.strerror if isinstance(error, OSError) else None
        reason = os.strerror(number) if number is not None else told or str(error).splitlines()[0]
        fix = "name another file or folder" if number is None else FIXES[number]
        raise WriteError(f"{path} cannot be written: {reason}\n    fix: {fix}") from error
