"""What the C library does with the memory that a step frees: it keeps some for the next step.

glibc gives every large block back to the system and asks for it anew, zeroed page by page. Activations on the CPU are
such blocks, and a step frees and takes all of them: half of its time can go there. Other systems are left alone.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
KEPT = 256 * 1024**2  # bytes at the end of the heap that stay
LARGEST = 1024**3  # bytes of a block that is taken from the heap


def keep_freed_memory() -> bool:
    """Let this process, and those forked from it, keep what they free; whether that was possible."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
