"""Words on pictures: one font on every machine, lines that fit."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import ImageFont


def wrapped(words: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """The lines of a text that is so many pixels wide; nothing of a blank one."""
    line = ""
    for word in words.split(" "):
        longer = f"{line} {word}" if line else word
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        line = fitted(longer, font, width)
    if line.strip():
        yield line


def fitted(words: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """On one line, cut with an ellipsis where it is too long."""
    words = " ".join(words.splitlines())
    if font.getlength(words) <= width:
        return words
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(words[:middle] + "…") <= width else (low, middle - 1)
    return words[:low] + "…"


@cache
def font_of(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The one that comes with matplotlib, so that every machine draws the same sheet."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)
