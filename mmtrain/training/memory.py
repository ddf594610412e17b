"""Memory of this process and of its device: how much there is, how much was in use at most, and what is kept."""

import ctypes
import os
import sys
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
KEPT = 256 * 1024**2  # bytes at the end of the heap that stay
LARGEST = 1024**3  # bytes of a block that is taken from the heap


def keep_freed_memory() -> bool:
    """Let this process, and those forked from it, keep what they free for the next step; whether that was possible.

    glibc gives every large block back to the system and asks for it anew, zeroed page by page. Activations on the CPU
    are such blocks, and a step frees and takes all of them: half of its time can go there. Other systems are left
    alone.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))


def resident() -> int:
    """Bytes of memory that this process has now; 0 on systems other than Linux, which do not tell so."""
    return _status("VmRSS")


def _status(name: str) -> int:
    path = Path("/proc/self/status")
    if not path.is_file():
        return 0
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


class Peak:
    """The most memory that was in use since the last reset.

    Args:
        device: of a GPU the tensors are counted, else what this process has.
        baseline: bytes that a process had before; they do not count.
    """

    def __init__(self, device: torch.device, baseline: int) -> None:
        self.device = device
        self.baseline = baseline

    def reset(self) -> None:
        """Forget what was before."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.baseline:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak of the resident set size
            except OSError:  # a container may forbid it
                self.baseline = 0

    def value(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # a process that freed much before has room in it that nobody sees being taken
        return max(0, _status("VmHWM") - self.baseline) if self.baseline else None


def memory_of(device: str) -> int:
    """Bytes that there are: of the first GPU, or of this machine, which a container may allow less of.

    Args:
        device: cpu or cuda.
    """
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = Path("/sys/fs/cgroup/memory.max")
    said = allowed.read_text().strip() if allowed.is_file() else "max"
    return machine if said == "max" else min(machine, int(said))


def workspace_of(device: str) -> int:
    """Bytes that torch gives to cuBLAS once it multiplies: 32 MiB from Hopper on, before 8.125, each to two threads.

    One thread runs forward passes, the other backward ones. Where there is no GPU to ask, it is taken to be a new one.

    Args:
        device: cpu or cuda.
    """
    if device == "cpu":
        return 0
    is_new = not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] >= 9
    return 2 * (32 * 1024**2 if is_new else 8320 * 1024)
