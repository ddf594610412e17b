"""Starts one process per device on this machine, forwards signals to them, and ends them together.

Lightning would start ranks by repeating the command line, which in a sweep repeats the sweep. Here every rank gets the
resolved configuration in a file and joins as if `torchrun` had started it. The parent only waits, and imports nothing
heavy.

The ranks meet through a file in a folder that only this user can read (`file://`, a FileStore), and communicate over
the loopback interface. The default of torch is a store without a password that listens on all interfaces.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mmtrain.cli.slurm import without_slurm
from mmtrain.training.launched_rank import RENDEZVOUS

FOLDERS = "mmtrain-ranks-"  # name prefix of folders of `private_folder`
LOCK = ".lock"
GRACE_SECONDS = 5.0  # for the other ranks to notice that one has ended


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that only this user can read. Folders of killed launchers are removed."""
    from filelock import FileLock

    _remove_left_folders()
    unlocked = Path(tempfile.mkdtemp(prefix=f".{FOLDERS}"))
    lock = FileLock(unlocked / LOCK)
    lock.acquire()
    folder = unlocked.rename(unlocked.with_name(unlocked.name[1:]))  # it never has this name without its lock
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_folders() -> None:
    from filelock import FileLock, Timeout

    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        try:
            with FileLock(folder / LOCK).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, FileNotFoundError):  # in use, or another launcher is removing it
            continue


def launch(config_file: Path, num_processes: int) -> int:
    """Run `python -m mmtrain.modes.run CONFIG_FILE` in several ranks, and return their common exit status.

    Args:
        config_file: in a folder that only this user can read; the ranks meet through a file next to it.
        num_processes: number of ranks.
    """
    environment = without_slurm(os.environ) | {
        RENDEZVOUS: str(config_file.resolve().with_name("rendezvous")),
        "MASTER_ADDR": "127.0.0.1",  # Lightning needs both, but nothing listens there
        "MASTER_PORT": "1",
        "WORLD_SIZE": str(num_processes),
    }
    if "lo" in [name for _, name in socket.if_nameindex()]:
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        environment.setdefault("NCCL_SOCKET_IFNAME", "=lo")  # with "=" the name must be equal
    environment["MMTRAIN_LAUNCHER"] = str(os.getpid())  # distinguishes ranks of this run from those of others
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # with the user's own classes
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    ranks: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(signum)

    before = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        for number in range(num_processes):
            own = {"RANK": str(number), "LOCAL_RANK": str(number), "NODE_RANK": "0", "GROUP_RANK": "0"}
            command = [sys.executable, "-P", "-m", "mmtrain.modes.run", str(config_file)]
            # in its own session: Ctrl-C in a terminal reaches it only once, through `forward`
            ranks.append(subprocess.Popen(command, env=environment | own, start_new_session=True))
        for signum in received[:1]:  # received while ranks were started
            forward(signum, None)
        return _watch(ranks)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.wait()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _watch(ranks: list["subprocess.Popen[bytes]"]) -> int:
    """Wait for all ranks. If one fails, give the others a moment and kill them. Return the status of the first failure.

    A rank ends with status 1 if another one is gone. A different failure at the same time or in that moment is
    therefore preferred.
    """
    deadline: float | None = None
    first_failure = 0
    while any(rank.poll() is None for rank in ranks):
        if first_failure in (0, 1):
            first_failure = max((_status(r) for r in ranks if r.poll() is not None), default=0)
        if first_failure and deadline is None:
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
            return first_failure
        time.sleep(0.05)
    return first_failure if first_failure > 1 else max(map(_status, ranks))


def _status(rank: "subprocess.Popen[bytes]") -> int:
    """Exit status as in a shell: 128 plus the signal that killed the process."""
    return 128 - rank.returncode if rank.returncode < 0 else rank.returncode
