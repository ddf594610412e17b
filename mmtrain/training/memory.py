"""Memory of this process and of its device: total, peak, and settings of the allocator."""

import ctypes
import os
import sys
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
KEPT = 256 * 1024**2  # bytes at the end of the heap that are kept
LARGEST = 1024**3  # bytes of the largest block that is taken from the heap


def tune_malloc() -> bool:
    """Let this process and its forks keep freed memory for the next step. Returns whether that was possible.

    glibc returns every large block to the system and requests it again, zeroed page by page. Activations on the CPU
    are such blocks, and a step frees and allocates all of them, which can take half of its time. Nothing is done on
    other systems.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))


def resident() -> int:
    """Bytes of memory of this process; 0 on systems other than Linux, which do not report them."""
    return _status("VmRSS")


def _status(name: str) -> int:
    path = Path("/proc/self/status")
    if not path.is_file():
        return 0
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


class Peak:
    """Peak of memory since the last reset.

    Args:
        device: on a GPU, tensors are counted; otherwise the memory of this process.
        baseline: bytes that the process had before, which are subtracted.
    """

    def __init__(self, device: torch.device, baseline: int) -> None:
        self.device = device
        self.baseline = baseline

    def reset(self) -> None:
        """Discard earlier values."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.baseline:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak of the resident set size
            except OSError:  # not allowed in some containers
                self.baseline = 0

    def value(self) -> int | None:
        """Bytes; None if the system does not report them."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # a process that freed much before reuses that memory without an increase
        return max(0, _status("VmHWM") - self.baseline) if self.baseline else None


def memory_of(device: str) -> int:
    """Total bytes: of the first GPU, or of this machine, or the limit of a container.

    Args:
        device: cpu or cuda.
    """
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = Path("/sys/fs/cgroup/memory.max")
    message = allowed.read_text().strip() if allowed.is_file() else "max"
    return machine if message == "max" else min(machine, int(message))


def workspace_of(device: str) -> int:
    """Bytes of torch's cuBLAS workspace: 32 MiB from Hopper on, 8.125 before, for each of two threads.

    One thread runs forward passes, the other backward passes. Without a GPU, a new one is assumed.

    Args:
        device: cpu or cuda.
    """
    if device == "cpu":
        return 0
    is_new = not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] >= 9
    return 2 * (32 * 1024**2 if is_new else 8320 * 1024)
