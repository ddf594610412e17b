"""Errors of the operating system that a user can fix: a full disk, a missing permission, a name that is too long."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtrain.errors import ConfigError, WriteError

_AGAIN = "then run the same command again (resume=auto resumes a run)"
FIXES = {
    errno.ENOSPC: f"free space on that disk, or name a folder on another one; {_AGAIN}",
    errno.EDQUOT: f"remove your files from that disk, or name a folder on another one; {_AGAIN}",
    errno.EROFS: f"mount it with write access, or name a folder on another disk; {_AGAIN}",
    errno.EACCES: "give yourself access (chmod, chown), or name a folder of your own",
    errno.EPERM: "give yourself access (chmod, chown), or name a folder of your own",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EIO: f"check the disk (dmesg), or name a folder on another one; {_AGAIN}",
    errno.ESTALE: f"mount the network disk again; {_AGAIN}",
    errno.EMFILE: f"allow more open files (ulimit -n 65536), or lower data.num_workers; {_AGAIN}",
}
_NAMED = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


def environment_errno(error: BaseException | None) -> int | None:
    """The errno of a full disk, a missing permission and similar errors; None for other errors.

    Libraries in Rust and C++ raise their own classes, so the text of the message is checked, too.

    >>> environment_errno(RuntimeError("I/O error: No space left on device (os error 28)"))
    28
    """
    while error is not None:
        text = str(error)
        match = re.search(r"(?:os error|\[Errno) (\d+)", text)  # from Rust; from Python in a loading process
        number = error.errno if isinstance(error, OSError) else None
        number = int(match[1]) if number is None and match else number
        number = number or next((known for words, known in _NAMED.items() if words in text), None)
        if number in FIXES:
            return number
        error = error.__cause__
    return None


def explanation(error: BaseException, where: str) -> str | None:
    """The message for such an error: the file, the reason and the fix; None for other errors.

    Args:
        error: raised by the file system or a library.
        where: replaces the file if the error names none.
    """
    number = environment_errno(error)
    named = error.filename if isinstance(error, OSError) else None
    if number is None or (named is None and number in (errno.EACCES, errno.EPERM)):  # for signals and ports
        return None
    return f"{named or where}: {os.strerror(number)}\n    fix: {FIXES[number]}"


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Convert errors of the file system to a WriteError with a fix.

    Args:
        path: the file that is written.

    Raises:
        WriteError: if it cannot be written.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        number = environment_errno(error)
        if number is None and not isinstance(error, OSError):
            raise
        system_message = error.strerror if isinstance(error, OSError) else None
        reason = os.strerror(number) if number is not None else system_message or str(error).splitlines()[0]
        fix = "name another file or folder" if number is None else FIXES[number]
        raise WriteError(f"{path}: cannot be written: {reason}\n    fix: {fix}") from error
