"""Sizes of memory and durations: parsed from text, and formatted for people."""

import math
import re
from collections.abc import Mapping
from datetime import timedelta

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(size: str | float) -> int:
    """Bytes of a size, in units of 1000 (GB) or 1024 (GiB).

    >>> parse_bytes("80GB"), parse_bytes("1.5 MiB"), parse_bytes(100)
    (80000000000, 1572864, 100)

    Raises:
        ValueError: for anything else, with an example of a size.
    """
    written = re.fullmatch(r"([\d.]+(?:e\d+)?)\s*([A-Za-z]*)", str(size).strip())
    if written is None or written[2].upper() not in UNITS or written[1].count(".") > 1:
        raise ValueError("a size such as 80GB")
    return int(float(written[1]) * UNITS[written[2].upper()])


def format_bytes(size: float) -> str:
    """A number of bytes for people.

    >>> format_bytes(1536), format_bytes(80 * 10**9)
    ('1.50 KiB', '74.5 GiB')
    """
    power = min(4, int(math.log(max(size, 1), 1024)))
    number = size / 1024**power
    return f"{number:#.3g}".rstrip(".") + f" {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def parse_duration(text: str | Mapping[str, int] | timedelta | None) -> timedelta | None:
    """Parse days, hours, minutes and seconds in Lightning's format.

    >>> parse_duration("00:12:30:00"), parse_duration(None)
    (datetime.timedelta(seconds=45000), None)

    Raises:
        ValueError: for another format.
    """
    if text is None or isinstance(text, timedelta):
        return text
    if isinstance(text, Mapping):
        return timedelta(**{str(unit): count for unit, count in text.items()})
    parts = str(text).split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise ValueError(f"{text} is not days:hours:minutes:seconds")
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
