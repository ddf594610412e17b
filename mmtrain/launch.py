"""Several processes on this machine, one a device: start them, pass signals on, end together.

Lightning would start ranks by repeating the command line, which in a sweep repeats the sweep. Here every rank gets the
resolved configuration in a file and joins as if `torchrun` had started it. No heavy import: the parent only watches.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from mmtrain.slurm import without_slurm

_PR_SET_PDEATHSIG = 1  # prctl(2)
GRACE_SECONDS = 5.0  # for the others to notice that one has ended


def launch(config_file: Path, num_processes: int) -> int:
    """Run `python -m mmtrain.run CONFIG_FILE` as so many ranks and give their common exit status."""
    port = _free_port()
    environment = without_slurm(os.environ) | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_processes),
    }
    environment["MMTRAIN_LAUNCHER"] = str(os.getpid())  # so that a rank can be told from those of other runs
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the user's own classes are found there too
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
            command = [sys.executable, "-P", "-m", "mmtrain.run", str(config_file)]
            # of a session of its own: Ctrl-C in a terminal reaches it once, by `forward`
            ranks.append(subprocess.Popen(command, env=environment | own, start_new_session=True))
        for signum in received[:1]:  # it came while they were being started
            forward(signum, None)
        return _watch(ranks)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.wait()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def end_with_launcher() -> None:
    """Called in a rank: when what launched it is killed, the kernel kills it too, and no orphan computes on.

    Systems other than Linux are left alone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(ranks: list["subprocess.Popen[bytes]"]) -> int:
    """Wait for all; when one fails, give the others a moment and end them. The first failure's status counts."""
    deadline: float | None = None
    first_failure = 0
    while any(rank.poll() is None for rank in ranks):
        if not first_failure:
            first_failure = next((r.returncode for r in ranks if r.poll()), 0)
        if first_failure and deadline is None:
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
    status = first_failure or next((r.returncode for r in ranks if r.returncode), 0)
    return 128 - status if status < 0 else status


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
