"""Sizes of memory, as people write them and as they read them."""

import math
import re

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def in_bytes(size: str | float) -> int:
    """Bytes of a size, in units of 1000 (GB) or 1024 (GiB).

    >>> in_bytes("80GB"), in_bytes("1.5 MiB"), in_bytes(100)
    (80000000000, 1572864, 100)

    Raises:
        ValueError: with an example of what is one.
    """
    written = re.fullmatch(r"([\d.]+(?:e\d+)?)\s*([A-Za-z]*)", str(size).strip())
    if written is None or written[2].upper() not in UNITS or written[1].count(".") > 1:
        raise ValueError("a size such as 80GB")
    return int(float(written[1]) * UNITS[written[2].upper()])


def readable(size: float) -> str:
    """A number of bytes for people.

    >>> readable(1536), readable(80 * 10**9)
    ('1.50 KiB', '74.5 GiB')
    """
    power = min(4, int(math.log(max(size, 1), 1024)))
    number = size / 1024**power
    return f"{number:#.3g}".rstrip(".") + f" {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
