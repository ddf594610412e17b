"""Pixel values beyond 8 bits: one scale for all pictures of a type, or a refusal with the fix; never black."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmtrain.errors import ConfigError, SampleError
from tests.data.parts import plain_image_input

GREY = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
WIDE = GREY.astype(np.uint16)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(values: np.ndarray, kind: int, *, photometric: int = 1, most: int | None = None) -> bytes:
    """A TIFF (H, W) or (H, W, 3) with its tags as a camera writes them."""
    bits, channels = 8 * values.itemsize, values.shape[2] if values.ndim == 3 else 1
    tags = {256: values.shape[1], 257: values.shape[0], 259: 1, 277: channels, 278: values.shape[0]}
    tags |= {262: photometric if channels == 1 else 2, 279: values.nbytes} | ({} if most is None else {281: most})
    lists = 8 + 2 + 12 * (len(tags) + 3) + 4
    tags |= {273: lists + 16, 258: bits if channels == 1 else lists, 339: kind if channels == 1 else lists + 8}
    entries = [
        struct.pack("<HHII", tag, 3 if tag in (258, 339) else 4, channels if tag in (258, 339) else 1, tags[tag])
        for tag in sorted(tags)
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4
    return head + struct.pack("<8H", *[bits] * 4, *[kind] * 4) + values.tobytes()


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def opened(value: Any, **knobs: Any) -> np.ndarray:
    return np.asarray(plain_image_input(**knobs).open(value, Path()))


def refused(value: Any, **knobs: Any) -> str:
    with pytest.raises(SampleError) as caught:
        opened(value, **knobs)
    return caught.value.reason


def scaled(white: float, dtype: Any) -> np.ndarray:
    """GREY with another white."""
    return (GREY.astype(np.float64) / 255 * white).round().astype(dtype)


@pytest.mark.parametrize(
    "value",
    [
        tiff(WIDE * 257, UNSIGNED),
        tiff(65535 - WIDE * 257, UNSIGNED, photometric=0),
        tiff(scaled(4095, np.uint16), UNSIGNED, most=4095),
        tiff(scaled(2**15 - 1, np.int16), SIGNED),
        tiff(scaled(2**31 - 1, np.int32), SIGNED),
        tiff(scaled(2**32 - 1, np.uint32), UNSIGNED),
        tiff((GREY / 255).astype(np.float32), FLOAT),
        tiff(np.stack([WIDE * 257] * 3, -1), UNSIGNED),
        png(WIDE * 257),
        b"P5 8 8 4095\n" + scaled(4095, ">u2").tobytes(),
        WIDE * 257,
        scaled(2**31 - 1, np.int32),
        (GREY / 255).tolist(),
        (GREY / 255).astype(np.float16),
        GREY.tolist(),
        GREY[None].tolist(),
        GREY[..., None].tolist(),
        np.stack([GREY] * 3).tolist(),
        np.stack([GREY, np.full_like(GREY, 255)]),
        np.stack([GREY / 255] * 3 + [np.ones((8, 8))], -1),
        Image.fromarray(WIDE * 257),
    ],
)
def test_one_picture_has_one_brightness_in_every_form(value: Any) -> None:
    assert (opened(value) == GREY[..., None]).all()


@pytest.mark.parametrize(
    ("value", "reason", "fix"),
    [
        (
            tiff(WIDE * 16, UNSIGNED),
            "holds uint16 values from 0 to 4032, and would be nearly black in 0..65535",
            [0, 4095],
        ),
        (tiff(scaled(4047, np.uint16), UNSIGNED, most=4047), "values from 0 to 3999", [0, 4095]),
        (tiff(WIDE, UNSIGNED), "uint16 values from 0 to 252", [0, 255]),
        (png(WIDE * 16), "uint16 values from 0 to 4032", [0, 4095]),
        (tiff(GREY.astype(np.int32), SIGNED), "int32 values from 0 to 252, and would be nearly black", [0, 255]),
        (tiff(WIDE.astype(np.int16) * 16, SIGNED), "int16 values from 0 to 4032", [0, 4095]),
        (tiff(WIDE.astype(np.int16) - 100, SIGNED), "from -100 to 152, but they are read as 0..32767", [-100, 152]),
        (tiff(GREY.astype(np.float32), FLOAT), "float values from 0 to 252, but they are read as 0..1", [0, 255]),
        ((GREY.astype(np.float32) / 126 - 1).tolist(), "float values from -1 to 1", [-1, 1]),
        ((WIDE * 257).tolist(), "integer values from 0 to 64764, but they are read as 0..255", [0, 65535]),
        ((GREY // 252).tolist(), "integer values from 0 to 1, and would be nearly black", [0, 1]),
    ],
)
def test_a_type_that_misleads_is_refused_and_the_range_can_be_set(value: Any, reason: str, fix: list[int]) -> None:
    text = refused(value)
    assert reason in text and f"set data.inputs.image.value_range=[{fix[0]},{fix[1]}]" in text
    seen = opened(value, value_range=fix)
    assert seen.min() < 2 and seen.max() > 245


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.where(GREY > 9, GREY / 255, np.nan), "float64 values; 3 of them are not finite"),
        (
            np.stack([GREY] * 5).tolist(),
            r"an array of shape (5, 8, 8) is no picture; give (H, W), (H, W, C) or (C, H, W)",
        ),
        (GREY[None, None], "an array of shape (1, 1, 8, 8) is no picture"),
        (np.zeros((0, 8)), "has no pixels"),
        ([[1, None]], "object values are no pixels; give numbers"),
        (tiff(np.stack([WIDE * 16] * 3, -1), UNSIGNED), "colours of 16 bits that fit 12 bits"),
        (Image.new("La", (8, 8)), "cannot be read as a picture"),
    ],
)
def test_what_is_no_picture_or_has_no_scale_is_refused(value: Any, reason: str) -> None:
    assert reason in refused(value)


def test_colours_of_16_bits_take_no_other_range() -> None:
    dark = tiff(np.stack([WIDE * 16] * 3, -1), UNSIGNED)
    assert opened(dark, value_range=[0, 65535]).max() == 15
    assert "value_range = [0, 4095] cannot be met; save the picture with 8 bits a channel" in refused(
        dark, value_range=[0, 4095]
    )


def test_a_range_that_is_set_is_a_window_and_leaves_8_bits_alone() -> None:
    cells = np.array([[-2000.0, -1000.0], [400.0, 3000.0]])
    assert opened(cells, value_range=[-1000, 400])[..., 0].tolist() == [[0, 0], [255, 255]]
    for value in (GREY, Image.fromarray(GREY), png(GREY)):
        assert (opened(value, value_range=[0, 65535]) == GREY[..., None]).all()


def test_black_stays_black_and_true_stays_white() -> None:
    assert not opened(tiff(WIDE * 0, UNSIGNED)).any() and not opened((GREY * 0.0).tolist()).any()
    assert set(opened(GREY > 100).flat) == {0, 255}


def test_a_large_picture_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtrain.data.inputs.image._PIXELS_AT_ONCE", 24)
    assert (opened(png(WIDE * 257)) == GREY[..., None]).all()
    assert "nearly black" in refused(png(WIDE * 16))


@pytest.mark.parametrize("value_range", [[0], [1, 0], [0, 0], [0, float("nan")], [0, 1, 2]])
def test_a_range_that_is_none_is_named(value_range: list[float]) -> None:
    with pytest.raises(ConfigError, match="is no pair of a smaller and a larger number"):
        plain_image_input(value_range=value_range)


def test_a_list_of_one_is_that_picture_and_several_are_for_another_input(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    reader = plain_image_input()
    for cell in (["a.png"], ["a.png", None], [(tmp_path / "a.png").read_bytes()], [{"bytes": None, "path": "a.png"}]):
        assert (np.asarray(reader.open(cell, tmp_path)) == GREY[..., None]).all()
    assert reader.key(["a.png"]) == reader.key("a.png")
    with pytest.raises(SampleError, match=r"2 pictures: .*input@data\.inputs\.image=images encoder/image=pictures"):
        reader.load(["a.png", "a.png"], tmp_path, seed=0, train=False)
