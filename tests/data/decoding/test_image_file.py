"""Which files are opened as pictures, and which are too large: decided by their heads."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from mmtrain.data.decoding.image_file import FORMATS, open_image, oversize
from mmtrain.data.inputs import image
from mmtrain.errors import SampleError
from tests.data.inputs.test_image import encoded
from tests.data.parts import image_input, plain_image_input

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def noise(width: int = 24, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def png(width: int, height: int, color: int = 0) -> bytes:
    """A black picture of any size, in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    samples = {0: 1, 2: 3, 6: 4}[color]
    body = chunk(b"IDAT", zlib.compress(bytes((1 + width * samples) * height)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def tiff(**tags: int) -> bytes:
    """16 x 16 grey pixels, in one tile or strip."""
    body = zlib.compress(bytes(256))
    entries = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1} | {int(tag[1:]): value for tag, value in tags.items()}
    entries |= {324: 0, 325: len(body)} if 322 in entries else {273: 0, 278: 16, 279: len(body)}
    start = 8 + 2 + 12 * len(entries) + 4
    packed = [
        struct.pack("<HHII", tag, 4, 1, start if tag in (273, 324) else value) for tag, value in sorted(entries.items())
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(packed) + bytes(4) + body


def progressive(scans: int) -> bytes:
    """A JPEG whose last scan comes many times."""
    content = encoded(noise(), "JPEG", progressive=True)
    last, end = content.rfind(b"\xff\xda"), content.rfind(b"\xff\xd9")
    return content[:end] + content[last:end] * scans + content[end:]


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_the_usual_formats_are_opened(kind: str, tmp_path: Path) -> None:
    content = encoded(noise(), kind)
    path = tmp_path / "a"
    path.write_bytes(content)
    for source in (content, path, io.BytesIO(content)):
        with open_image(source) as picture:
            assert picture.size == (24, 24)


@pytest.mark.parametrize("content", [EPS, b"no picture", b"", encoded(noise(), "TGA"), encoded(noise(), "PCX")])
def test_others_are_not(content: bytes) -> None:
    with pytest.raises(UnidentifiedImageError, match="damaged, or none of JPEG, PNG, WEBP"):
        open_image(content)


def test_a_picture_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, ghostscript = tmp_path / "ran", tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(EPS)
    with pytest.raises(SampleError, match=r"cat\.png: cannot be read as a picture: damaged, or none of"):
        plain_image_input().open("cat.png", tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("width", "height", "size", "max_pixels", "reason"),
    [
        (640, 480, 224, 10**8, None),
        (10_000, 10_000, 224, 10**8, None),
        (10_001, 10_000, 224, 10**8, "10001 x 10000 pixels are more than max_pixels"),
        (65_500, 1, 224, 10**8, "65500 x 1 pixels: resized to size = 224, it would have 3,286,528,000 pixels"),
        (1, 65_500, 224, 10**8, "1 x 65500 pixels: resized"),
        (30_000_000, 1, 224, 10**8, "30000000 x 1 pixels: resized"),
        (3000, 32, 224, 10**8, None),  # a line of text
        (500, 20, 8, 10**8, None),
        (16, 1, 1000, 100, None),  # a limit below what the model sees is none of what is made
        (17, 1, 1000, 100, "17 x 1 pixels: resized to size = 1000"),
        (0, 5, 8, 100, None),  # reported by the caller
    ],
)
def test_a_size_that_would_fill_the_memory(
    width: int, height: int, size: int, max_pixels: int, reason: str | None
) -> None:
    result = oversize(width, height, size=size, max_pixels=max_pixels)
    assert result is None if reason is None else result is not None and result.startswith(reason)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("crop_scale", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(65_500, 1), (1, 65_500)])
def test_a_line_of_pixels_is_set_aside_before_it_is_decoded(
    shape: tuple[int, int], crop_scale: float, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, content = image_input(size=224, crop_scale=crop_scale), png(*shape)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(SampleError, match="resized to size = 224"):
        reader.load(content, Path(), seed=0, train=train)


def test_the_picture_in_an_icon_has_the_size_that_counts() -> None:
    inside = png(60_000, 1)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside
    with pytest.raises(SampleError, match="60000 x 1 pixels: resized to size = 224"):
        image_input(size=224).load(icon, Path(), seed=0, train=False)


def test_the_tiles_of_a_picture_are_not_far_larger_than_it() -> None:
    assert plain_image_input().open(tiff(), Path()).size == (16, 16)
    assert open_image(tiff(t322=1024, t323=1024)).size == (16, 16)
    with pytest.raises(SampleError, match="a picture of 16 x 16 with tiles of 30000 x 30000 pixels"):
        plain_image_input().open(tiff(t322=30_000, t323=30_000), Path())


def test_a_picture_of_hundreds_of_scans_is_set_aside() -> None:
    reader = plain_image_input()
    assert reader.open(progressive(0), Path()).size == reader.open(progressive(80), Path()).size == (24, 24)
    with pytest.raises(SampleError, match=r"a progressive JPEG of 1\d\d scans, more than 100"):
        reader.open(progressive(100), Path())


MODES: dict[str, Any] = {
    **{mode: noise(40, 50).convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")},
    "F": Image.fromarray(np.random.default_rng(0).random((50, 40), dtype=np.float32)),
    "I;16": Image.fromarray(np.random.default_rng(0).integers(0, 65535, (50, 40), dtype=np.uint16)),
    "I": Image.fromarray(np.random.default_rng(0).integers(0, 65535, (50, 40), dtype=np.int32)),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_large_picture_is_converted_in_bands_with_the_same_pixels(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = plain_image_input(background=[1, 200, 30])
    pictures = [MODES[mode]]
    if mode in ("L", "P", "RGB"):
        clear = 7 if mode != "RGB" else MODES[mode].getpixel((3, 3))
        pictures.append(open_image(encoded(MODES[mode], transparency=clear)))
    for picture in pictures:
        full = np.asarray(reader.open(picture, Path()))
        with monkeypatch.context() as patch:
            patch.setattr(image, "_PIXELS_AT_ONCE", 40 * 7)
            assert (np.asarray(reader.open(picture, Path())) == full).all()


def test_good_pictures_are_what_pillow_and_torchvision_make_of_them() -> None:
    """Written anew here: nothing of what looks for bad ones may change good ones."""
    from torchvision.transforms import v2

    reader = image_input(size=16, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], rotate=0.0, color_jitter=0.0)
    for kind in FORMATS:
        content = encoded(noise(40, 30), kind)
        pixels = v2.functional.pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB"))
        plain = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        steps = [v2.Resize(16, antialias=True), v2.CenterCrop(16), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        expected = v2.Compose([*steps, v2.Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])])(plain)
        assert torch.equal(reader.load(content, Path(), seed=0, train=False)[0], expected), kind
