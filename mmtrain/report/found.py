"""A contact sheet of search results as a PNG: one band per query, with the items nearest first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.errors import SampleError
from mmtrain.report.lettering import fit_text, font_of, wrap_text

TILE = 128  # pixels of an image's longer side
GAP, MARGIN, HEAD = 10, 16, 44
LINES = 2  # of text below an image
INK, FAINT, PAPER, BAND = "#1b1b1f", "#8a8a94", "#ffffff", "#eef0f4"


class Result(NamedTuple):
    """One item: its image, as a file or opened, or None; its text; and its similarity."""

    picture: Path | Image.Image | None
    words: str
    score: float


class QueryRow(NamedTuple):
    """A query, as text or image, and its results."""

    words: str | None
    picture: Path | Image.Image | None
    results: Sequence[Result]


def results_sheet(queries: Sequence[QueryRow], *, title: str) -> Image.Image:
    """Draw the sheet.

    Args:
        queries: queries with results, from top to bottom.
        title: title of the sheet.
    """
    columns = 1 + max((len(one.results) for one in queries), default=0)
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    bands = [_band(one, width) for one in queries]
    sheet = Image.new("RGB", (width, HEAD + sum(band.height for band in bands)), PAPER)
    bold = font_of(15, bold=True)
    ImageDraw.Draw(sheet).text((MARGIN, 12), fit_text(title, bold, width - 2 * MARGIN), INK, bold)
    top = HEAD
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _band(query: QueryRow, width: int) -> Image.Image:
    band = Image.new("RGB", (width, TILE + 16 * (LINES + 1) + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(band)
    draw.rectangle((0, 0, MARGIN + TILE + GAP // 2, band.height - GAP // 2), BAND)
    _place(band, MARGIN, _tile(query.picture, query.words or ""))
    for number, result in enumerate(query.results, start=1):
        left = MARGIN + number * (TILE + GAP)
        _place(band, left, _tile(result.picture, result.words))
        draw.text((left, TILE + GAP + 2), f"{result.score:.3f}", FAINT, font_of(11))
        if result.picture is not None:
            for line, words in enumerate([*wrap_text(result.words, font_of(11), TILE)][:LINES]):
                draw.text((left, TILE + GAP + 16 * (line + 1) + 2), words, INK, font_of(11))
    return band


def _place(band: Image.Image, left: int, tile: Image.Image) -> None:
    band.paste(tile, (left + (TILE - tile.width) // 2, GAP // 2 + (TILE - tile.height) // 2))


def _tile(picture: Path | Image.Image | None, words: str) -> Image.Image:
    """The image, or text if there is no image or it cannot be read."""
    if isinstance(picture, Image.Image):
        small = picture.convert("RGB")
        small.thumbnail((TILE, TILE))
        return small
    if picture is not None and not picture.is_file():  # opening a pipe would block
        words = f"{picture.name} cannot be read"
    elif picture is not None:
        try:
            with sample_errors(str(picture)), open_image(picture) as opened:
                shown = Image.new("RGBA", opened.size, PAPER)
                shown.alpha_composite(opened.convert("RGBA"))
                shown.thumbnail((TILE, TILE))
                return shown.convert("RGB")
        except SampleError:
            words = f"{picture.name} cannot be read"
    tile = Image.new("RGB", (TILE, TILE), BAND)
    draw = ImageDraw.Draw(tile)
    for line, part in enumerate([*wrap_text(words, font_of(13), TILE - 12)][:7]):
        draw.text((6, 6 + 17 * line), part, INK, font_of(13))
    return tile
