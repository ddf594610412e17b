"""The connection of a rank to `mmtrain.cli.launch`, which started it. Imports no torch."""

import ctypes
import signal
import sys

RENDEZVOUS = "MMTRAIN_RENDEZVOUS"  # path of the file through which the ranks of `mmtrain.cli.launch` meet
_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_launcher() -> None:
    """Called in a rank: if its launcher is killed, the kernel kills the rank, too, so no orphan continues.

    Nothing is done on systems other than Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
