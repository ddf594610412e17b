"""For chaos_phases.py: a command as a process, and a fault at the moment when a certain file is read or written.

Python reports each opening of a file to audit hooks, so that nothing of the project has to be changed for this.
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
    """When a fault happens.

    Attributes:
        pattern: a regular expression for the path of a file.
        writes: whether the file is opened for writing; then the fault comes when the first bytes are to be written.
        count: how often that must have happened.
    """

    pattern: str
    writes: bool = True
    count: int = 1


class Fault:
    """Happens once.

    Args:
        what: kill, term, full or read-only.
        moment: when.
        disk: that becomes full, or cannot be written any more.
        mark: a file that is made when it happens.
    """

    def __init__(self, what: str, moment: Moment, disk: Path, mark: Path) -> None:
        self.what = what
        self.moment = moment
        self.disk = disk
        self.mark = mark
        self._left = moment.count
        self._waits = False  # the file is open, nothing is written yet

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What sys.addaudithook takes."""
        if self._waits and event in ("open", "os.rename"):  # of another file: libraries in Rust write unseen
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
        else:  # mounted over itself: files that are open stay writable, as when a system remounts a disk with errors
            subprocess.run(["mount", "--bind", "-o", "ro", self.disk, self.disk], check=True)


def fill(disk: Path) -> None:
    """Leave not one byte."""
    handle = os.open(disk / FILLER, os.O_WRONLY | os.O_CREAT)
    for size in (2**20, 2**12, 1):
        try:
            while os.write(handle, bytes(size)):
                pass
        except OSError:
            continue
    os.close(handle)


def enter(words: list[str], log: Path, environment: dict[str, str], cwd: Path, fault: Fault | None) -> None:
    """The target of a process: train.py in a session of its own.

    Args:
        words: of the command line.
        log: what it prints goes there.
        environment: variables to set.
        cwd: where it runs.
        fault: what happens to it.
    """
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of its own workers, as in a new interpreter
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
