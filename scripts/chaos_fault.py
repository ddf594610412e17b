"""For chaos_phases.py: run a command as a process, with a fault at the moment when a certain file is read or written.

Python reports each opening of a file to audit hooks, so nothing in mmtrain has to be changed for this.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
FILLER = "filler"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Moment(NamedTuple):
    """The moment of a fault.

    Attributes:
        pattern: regular expression for the path of a file.
        writes: whether the file is opened for writing; then the fault happens before the first bytes are written.
        count: number of occurrences.
    """

    pattern: str
    writes: bool = True
    count: int = 1


class Fault:
    """A fault, which happens once.

    Args:
        what: kill, term, full or read-only.
        moment: the moment.
        disk: the disk that becomes full or read-only.
        mark: a file that is created when it happens.
    """

    def __init__(self, what: str, moment: Moment, disk: Path, mark: Path) -> None:
        self.what = what
        self.moment = moment
        self.disk = disk
        self.mark = mark
        self._left = moment.count
        self._waits = False  # the file is open, but nothing is written yet

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook for sys.addaudithook."""
        if self._waits and event in ("open", "os.rename"):  # of another file: writes in Rust are not reported
            self._happen()
        if event != "open" or self._left == 0 or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path, mode, flags = os.fsdecode(arguments[0]), arguments[1], arguments[2]
        writes = bool(set(mode) & set("wax+")) if mode else bool(flags & _WRITES)
        if writes != self.moment.writes or not re.search(self.moment.pattern, path):
            return
        self._left -= 1
        if self._left > 0:
            return
        if writes:
            self._waits = True
            sys.setprofile(self._profile)
        else:
            self._happen()

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        if self._waits and event == "c_call" and function.__name__ in ("write", "writelines"):
            self._happen()

    def _happen(self) -> None:
        self._waits = False
        sys.setprofile(None)
        self.mark.touch()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.what == "full":
            fill(self.disk)
        else:  # open files stay writable, as when a system remounts a disk with errors
            subprocess.run(["mount", "--bind", "-o", "ro", self.disk, self.disk], check=True)


def fill(disk: Path) -> None:
    """Fill a disk to the last byte."""
    handle = os.open(disk / FILLER, os.O_WRONLY | os.O_CREAT)
    for size in (2**20, 2**12, 1):
        try:
            while os.write(handle, bytes(size)):
                pass
        except OSError:
            continue
    os.close(handle)


def enter(words: list[str], log: Path, environment: dict[str, str], cwd: Path, fault: Fault | None) -> None:
    """The target of a process: train.py in its own session.

    Args:
        words: of the command line.
        log: file for its output.
        environment: variables to set.
        cwd: working directory.
        fault: its fault.
    """
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for its own workers, as in a new interpreter
    os.chdir(cwd)
    os.environ |= environment
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.argv = [str(TRAIN), *words]
    if fault is not None:
        sys.addaudithook(fault.hook)
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    finally:
        atexit._run_exitfuncs()
