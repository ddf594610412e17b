"""What a rank that `mmtrain.cli.launch` started knows of its launcher. Imports no torch."""

import ctypes
import signal
import sys

RENDEZVOUS = "MMTRAIN_RENDEZVOUS"  # names the file by which the ranks of `mmtrain.cli.launch` meet
_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_launcher() -> None:
    """Called in a rank: when what launched it is killed, the kernel kills it too, and no orphan computes on.

    Systems other than Linux are left alone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
