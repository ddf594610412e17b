"""Opens a file as an image: a fixed list of formats, and limits that are checked on the header.

Pillow opens more than 40 formats. Most of them are not used in data sets, and each is another parser for untrusted
bytes. One of them, EPS, starts Ghostscript with the program in the file.
"""

import io
import re
from pathlib import Path
from typing import IO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

# PPM includes PGM, PBM and PFM; JPEG includes MPO. The most frequent come first: Pillow tries them in this order.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000", "ICO")
_MAX_RATIO = 16  # of the long side to the short one, for which every size can be created
_MAX_TILE = 1 << 24  # pixels of a TIFF tile that is larger than the image
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_MAX_SCANS = 100  # of a progressive JPEG; 10 are usual
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")


def open_image(source: Path | bytes | IO[bytes]) -> Image.Image:
    """Open an image file without decoding it.

    Args:
        source: a path, the content of a file, or an open file.

    Raises:
        PIL.UnidentifiedImageError: for a file with no format of `FORMATS`.
        OSError: if it cannot be read.
        ValueError: for a TIFF whose tiles are far larger than the image, which can fill the memory, and for a JPEG with
            hundreds of scans, which can take hours.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(f"damaged, or none of {', '.join(FORMATS)}") from error
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        width, length = (picture.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        if width * length > max(picture.width * picture.height, _MAX_TILE):
            raise ValueError(f"a picture of {picture.width} x {picture.height} with tiles of {width} x {length} pixels")
    if "progressive" in picture.info and picture.fp is not None:
        place = picture.fp.tell()
        picture.fp.seek(0)
        scans = _num_scans(picture.fp.read())
        picture.fp.seek(place)
        if scans > _MAX_SCANS:
            raise ValueError(f"a progressive JPEG of {scans} scans, more than {_MAX_SCANS}")
    return picture


def _num_scans(content: bytes) -> int:
    """The number of scans of a JPEG."""
    at, scans = 0, 0
    while (marker := _MARKER.search(content, at)) is not None and marker[1] != b"\xd9":  # end marker
        scans += marker[1] == b"\xda"
        at = marker.end()
        at += int.from_bytes(content[at : at + 2], "big") if marker[1] != b"\xd8" else 0  # the start has no length
    return scans


def oversize(width: int, height: int, *, size: int, max_pixels: int) -> str | None:
    """Why an image must not be decoded or resized; None for an acceptable size.

    Resizing the short side to `size` makes a line of 65,500 x 1 pixels an image of 65,500 * size * size.

    Args:
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        size: size of the short side after resizing.
        max_pixels: maximum number of pixels, before and after.

    >>> oversize(640, 480, size=224, max_pixels=10**8)
    >>> oversize(65500, 1, size=224, max_pixels=10**8)
    '65500 x 1 pixels: resized to size = 224, it would have 3,286,528,000 pixels, more than max_pixels = 100000000'
    """
    if width * height > max_pixels:
        return f"{width} x {height} pixels are more than max_pixels = {max_pixels}"
    short, long = sorted((max(1, width), max(1, height)))
    resized = size * size * long // short
    if resized > max(max_pixels, _MAX_RATIO * size * size):
        return (
            f"{width} x {height} pixels: resized to size = {size}, it would have {resized:,} pixels, more than"
            f" max_pixels = {max_pixels}"
        )
    return None
