"""How a time limit is written."""

from collections.abc import Mapping
from datetime import timedelta


def duration(text: str | Mapping[str, int] | timedelta | None) -> timedelta | None:
    """Days, hours, minutes and seconds, as Lightning writes them.

    >>> duration("00:12:30:00"), duration(None)
    (datetime.timedelta(seconds=45000), None)

    Raises:
        ValueError: when it is not written so.
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
