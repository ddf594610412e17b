"""A contact sheet of inputs as a PNG: one band per row of the data, one column per way in which it was augmented.

It draws images, frames, sounds, tokens and numbers, and does not depend on their origin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mmtrain.report.lettering import fit_text, font_of, wrap_text

WIDTH = 232  # pixels of a column
GAP = 8
MARGIN = 16
PICTURE = 132  # maximum height of an image: slightly more than twice 64
SOUND = 72
FRAMES_A_LINE = 4
MAX_TOKENS = 120
INK, FAINT, PAPER, BAND = "#1b1b1f", "#8a8a94", "#ffffff", "#eef0f4"
# Distinguishable without colour: what the model cannot see is struck through or framed.
PLAIN, SPECIAL, UNKNOWN, HIDDEN = "plain", "special", "unknown", "hidden"
COLORS = {PLAIN: "#e7ecf5", SPECIAL: "#ffffff", UNKNOWN: "#f6c7b6", HIDDEN: "#d9d9de"}


class Picture(NamedTuple):
    """Pixels (3, H, W) in 0..1."""

    pixels: Tensor


class Frames(NamedTuple):
    """Pixels (F, 3, H, W) in 0..1."""

    pixels: Tensor


class Sound(NamedTuple):
    """A waveform (L,) at a rate in Hz."""

    waveform: Tensor
    sample_rate: int


class Tokens(NamedTuple):
    """Tokens of a text, each with its kind: PLAIN, SPECIAL, UNKNOWN or HIDDEN."""

    pieces: Sequence[tuple[str, str]]


class Numbers(NamedTuple):
    """Numbers (D,), or (T, D) over time."""

    values: Tensor


class Nothing(NamedTuple):
    """A missing input, or the reason why it cannot be shown."""

    why: str


View = Picture | Frames | Sound | Tokens | Numbers | Nothing


@dataclass(frozen=True)
class Band:
    """The band of a row of the data.

    Attributes:
        name: id of the row.
        draws: by column, inputs by name; every column has the same names.
        targets: targets by name, as text.
    """

    name: str
    draws: Sequence[dict[str, View]]
    targets: dict[str, str]


def contact_sheet(bands: Sequence[Band], *, columns: Sequence[str], title: str) -> Image.Image:
    """Draw the sheet.

    Args:
        bands: from top to bottom.
        columns: heading of each column.
        title: title of the sheet.
    """
    width = 2 * MARGIN + len(columns) * WIDTH + (len(columns) - 1) * GAP
    drawn = [_band(band, width) for band in bands]
    head = _head(columns, title, width)
    sheet = Image.new("RGB", (width, head.height + sum(d.height for d in drawn) + MARGIN), PAPER)
    top = 0
    for part in [head, *drawn]:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _head(columns: Sequence[str], title: str, width: int) -> Image.Image:
    head = Image.new("RGB", (width, 92), PAPER)
    draw = ImageDraw.Draw(head)
    draw.text((MARGIN, 12), fit_text(title, font_of(17, bold=True), width - 2 * MARGIN), INK, font_of(17, bold=True))
    at = MARGIN
    for kind, words in ((SPECIAL, "mark"), (PLAIN, "token"), (UNKNOWN, "unknown"), (HIDDEN, "hidden in training")):
        at += _token(draw, at, 40, words, kind) + 6
    for number, column in enumerate(columns):
        draw.text((_left(number), 70), column, INK, font_of(13, bold=True))
    return head


def _left(column: int) -> int:
    return MARGIN + column * (WIDTH + GAP)


def _band(band: Band, width: int) -> Image.Image:
    names = list(band.draws[0])
    tiles = {name: [_tile(draws[name]) for draws in band.draws] for name in names}
    heights = {name: max(tile.height for tile in tiles[name]) for name in names}
    words = "   ".join(f"{name}: {value}" for name, value in band.targets.items())
    lines = list(wrap_text(words, font_of(13, bold=True), width - 2 * MARGIN))
    height = 30 + sum(h + 20 + GAP for h in heights.values()) + 18 * len(lines) + GAP
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, 22), BAND)
    draw.text((MARGIN, 3), fit_text(band.name, font_of(13), width - 2 * MARGIN), INK, font_of(13))
    top = 28
    for name in names:
        draw.text((MARGIN, top), name, FAINT, font_of(11))
        for column, tile in enumerate(tiles[name]):
            image.paste(tile, (_left(column), top + 16))
        top += heights[name] + 20 + GAP
    for line in lines:
        draw.text((MARGIN, top - 4), line, INK, font_of(13, bold=True))
        top += 18
    return image


def _tile(view: View) -> Image.Image:
    match view:
        case Picture(pixels):
            return _scaled(_image(pixels), WIDTH, PICTURE)
        case Frames(pixels):
            return _strip(pixels)
        case Sound(waveform, sample_rate):
            return _spectrogram(waveform, sample_rate)
        case Tokens(pieces):
            return _text(pieces)
        case Numbers(values):
            return _heat(values)
        case Nothing(why):
            return _nothing(why)


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _scaled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to fit. Pixels of a small image stay visible as equal squares."""
    scale = min(width / picture.width, height / picture.height)
    scale = math.floor(scale) if scale > 1 else scale
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _strip(frames: Tensor) -> Image.Image:
    side = (WIDTH - 2 * (FRAMES_A_LINE - 1)) // FRAMES_A_LINE
    images = [_scaled(_image(frame), side, side) for frame in frames]
    lines = -(-len(images) // FRAMES_A_LINE)
    strip = Image.new("RGB", (WIDTH, max(lines, 1) * (side + 2)), PAPER)
    for number, image in enumerate(images):
        strip.paste(image, (number % FRAMES_A_LINE * (side + 2), number // FRAMES_A_LINE * (side + 2)))
    return strip


def _spectrogram(waveform: Tensor, sample_rate: int) -> Image.Image:
    """Spectrogram with time to the right, frequency up, 80 dB from dark to light, and the duration below."""
    width = max(32, 1 << (round(0.032 * sample_rate).bit_length() - 1))
    sound = torch.nn.functional.pad(waveform.float(), (0, max(0, width - len(waveform))))
    spectrum = torch.stft(
        sound, width, width // 4, window=torch.hann_window(width), center=False, return_complex=True
    ).abs()  # (F, T)
    decibels = 20 * spectrum.clamp(min=1e-7).log10()
    shade = ((decibels - decibels.max()) / 80 + 1).clamp(0, 1).flip(0)
    picture = _colored(shade.numpy(), "magma").resize((WIDTH, SOUND), Image.Resampling.BILINEAR)
    return _captioned(picture, f"{len(waveform) / sample_rate:.2f} s, 0 to {sample_rate / 2000:g} kHz")


def _heat(values: Tensor) -> Image.Image:
    """A vector as a row of squares, or a sequence with time to the right; blue below 0, red above."""
    rows = values.float().reshape(1, -1) if values.ndim == 1 else values.float().T  # (D, T)
    most = float(rows.abs().max()) if rows.numel() else 0.0
    shade = (rows / (2 * most) + 0.5 if most else torch.full_like(rows, 0.5)).numpy()
    height = 20 if values.ndim == 1 else min(96, max(24, 4 * rows.shape[0]))
    picture = _colored(shade, "RdBu_r").resize((WIDTH, height), Image.Resampling.NEAREST)
    ImageDraw.Draw(picture).rectangle((0, 0, WIDTH - 1, height - 1), outline=FAINT)
    shape = f"{values.shape[0]} numbers" if values.ndim == 1 else f"{values.shape[0]} frames of {values.shape[1]}"
    if values.ndim == 1 and len(values) <= 6:
        shape = ", ".join(f"{float(v):.2f}" for v in values)
    return _captioned(picture, f"{shape}; colours to ±{most:.2g}")


def _colored(shade: np.ndarray, name: str) -> Image.Image:
    return Image.fromarray((mpl.colormaps[name](shade)[..., :3] * 255).astype(np.uint8))


def _captioned(picture: Image.Image, words: str) -> Image.Image:
    image = Image.new("RGB", (WIDTH, picture.height + 16), PAPER)
    image.paste(picture, (0, 0))
    ImageDraw.Draw(image).text((0, picture.height + 1), fit_text(words, font_of(11), WIDTH), FAINT, font_of(11))
    return image


def _text(pieces: Sequence[tuple[str, str]]) -> Image.Image:
    shown = list(pieces[:MAX_TOKENS])
    if len(pieces) > MAX_TOKENS:
        shown.append((f"and {len(pieces) - MAX_TOKENS} more", SPECIAL))
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    places, left, top = [], 0, 0
    for words, kind in shown:
        width = _token_width(ruler, words)
        if left and left + width > WIDTH:
            left, top = 0, top + 22
        places.append((left, top, words, kind))
        left += width + 3
    image = Image.new("RGB", (WIDTH, top + 22), PAPER)
    draw = ImageDraw.Draw(image)
    for left, top, words, kind in places:
        _token(draw, left, top, words, kind)
    return image


def _token_width(draw: ImageDraw.ImageDraw, words: str) -> int:
    return min(WIDTH, math.ceil(draw.textlength(words, font_of(12))) + 8)


def _token(draw: ImageDraw.ImageDraw, left: int, top: int, words: str, kind: str) -> int:
    width = _token_width(draw, words)
    outline = INK if kind == UNKNOWN else None
    draw.rounded_rectangle((left, top, left + width - 1, top + 18), 3, fill=COLORS[kind], outline=outline)
    ink = FAINT if kind in (SPECIAL, HIDDEN) else INK
    draw.text((left + 4, top + 2), fit_text(words, font_of(12), width - 8), ink, font_of(12))
    if kind == HIDDEN:
        draw.line((left + 2, top + 10, left + width - 3, top + 10), INK, 1)
    return width


def _nothing(why: str) -> Image.Image:
    lines = list(wrap_text(why, font_of(12), WIDTH - 12))
    image = Image.new("RGB", (WIDTH, 10 + 16 * len(lines)), PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH - 1, image.height - 1), outline="#c9c9d0")
    for number, line in enumerate(lines):
        draw.text((6, 4 + 16 * number), line, FAINT, font_of(12))
    return image
