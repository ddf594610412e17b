"""Text on images: the same font on every machine, and lines that fit."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import ImageFont


def wrap_text(words: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Break a text into lines of at most this width in pixels; none for a blank text."""
    line = ""
    for word in words.split(" "):
        longer = f"{line} {word}" if line else word
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        line = fit_text(longer, font, width)
    if line.strip():
        yield line


def fit_text(words: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A text on one line, cut with an ellipsis if it is too long."""
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
    """The font that comes with matplotlib, so every machine draws the same sheet."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)
