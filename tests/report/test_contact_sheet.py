"""A sheet shows the pixels it is given, a column for each draw, and is the same on every machine."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mmtrain.report.contact_sheet import (
    COLORS,
    GAP,
    HIDDEN,
    MARGIN,
    PLAIN,
    SPECIAL,
    UNKNOWN,
    WIDTH,
    Band,
    Frames,
    Nothing,
    Numbers,
    Picture,
    Sound,
    Tokens,
    View,
    contact_sheet,
)


def sheet_of(*views: View, targets: dict[str, str] | None = None) -> Image.Image:
    band = Band(name="row 1", draws=[{"part": view} for view in views], targets=targets or {})
    return contact_sheet([band], columns=[f"draw {n}" for n in range(len(views))], title="a title")


def count(sheet: Image.Image, color: tuple[int, int, int], column: int | None = None) -> int:
    pixels = np.asarray(sheet)[92:]
    if column is not None:
        left = MARGIN + column * (WIDTH + GAP)
        pixels = pixels[:, left : left + WIDTH]
    return int((pixels == color).all(-1).sum())


def rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def test_a_small_picture_keeps_its_pixels_as_equal_squares() -> None:
    red = torch.zeros(3, 64, 64)
    red[0] = 1.0
    red[:, :32] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    sheet = sheet_of(Picture(red), Nothing("no picture"))
    assert count(sheet, (255, 0, 0), column=0) == count(sheet, (0, 255, 0), column=0) == 128 * 64
    assert count(sheet, (255, 0, 0), column=1) == 0


def test_a_large_picture_fits_its_column_and_values_beyond_the_range_are_clipped() -> None:
    sheet = sheet_of(Picture(torch.full((3, 100, 1000), -3.0)))
    assert count(sheet, (0, 0, 0)) == WIDTH * round(WIDTH / 10)


def test_every_frame_is_there() -> None:
    frames = torch.zeros(5, 3, 8, 8)
    frames[:, 2] = 1.0
    side = 8 * ((WIDTH - 6) // 4 // 8)
    assert count(sheet_of(Frames(frames)), (0, 0, 255)) == 5 * side * side


def test_a_tone_is_a_bright_line_at_its_height() -> None:
    time = torch.arange(16000) / 16000
    sheet = sheet_of(Sound(torch.sin(2 * math.pi * 6000 * time), 16000))
    brightness = np.asarray(sheet, dtype=int)[92:, MARGIN : MARGIN + WIDTH].sum(-1)
    dark = np.flatnonzero((brightness < 60).mean(1) > 0.9)  # the rows of the spectrogram
    inside = brightness[dark[0] : dark[-1] + 1].mean(1)
    assert 0.2 < inside.argmax() / len(inside) < 0.3, "6 of 8 kHz, from below"


@pytest.mark.parametrize("length", [1, 100])
def test_a_sound_shorter_than_a_window_is_drawn(length: int) -> None:
    assert sheet_of(Sound(torch.zeros(length), 16000)).width == 2 * MARGIN + WIDTH


def test_what_became_of_a_token_is_seen() -> None:
    fills = {kind: count(sheet_of(Tokens([("word", kind)])), rgb(COLORS[kind])) for kind in (UNKNOWN, HIDDEN, PLAIN)}
    assert all(num > 100 for num in fills.values()), fills
    plain = sheet_of(Tokens([("word", SPECIAL)]))
    assert [count(plain, rgb(COLORS[kind])) for kind in (UNKNOWN, HIDDEN, PLAIN)] == [0, 0, 0]


def test_long_texts_wrap_and_end() -> None:
    heights = [sheet_of(Tokens([("word", PLAIN)] * num)).height for num in (2, 40, 120, 121, 5000)]
    assert heights == sorted(heights) and heights[0] < heights[1] < heights[2]
    assert heights[4] - heights[2] <= 22


@pytest.mark.parametrize("shape", [(3,), (1,), (40, 5), (1, 300)])
def test_numbers_below_zero_are_blue_and_above_it_red(shape: tuple[int, ...]) -> None:
    for sign, channel in ((1.0, 0), (-1.0, 2)):
        pixels = np.asarray(sheet_of(Numbers(torch.full(shape, sign))))[92:, MARGIN + 2 : MARGIN + WIDTH - 2].astype(
            int
        )
        strong = pixels[(pixels.max(-1) - pixels.min(-1)) > 60]
        assert len(strong) and (strong.argmax(-1) == channel).all()
    sheet_of(Numbers(torch.zeros(shape)))


def test_bands_stand_below_each_other_with_their_targets() -> None:
    band = Band(name="1", draws=[{"part": Nothing("no part")}], targets={})
    with_targets = Band(name="2\nx", draws=[{"part": Nothing("no part")}], targets={"label": "a cat " * 40})
    one, two, wrapped = (
        contact_sheet(bands, columns=["draw"], title="a title " * 50) for bands in ([band], [band] * 2, [with_targets])
    )
    assert one.height < two.height and one.height < wrapped.height
    assert one.tobytes() == contact_sheet([band], columns=["draw"], title="a title " * 50).tobytes()
