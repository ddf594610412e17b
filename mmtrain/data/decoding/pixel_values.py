"""Converts pixel values of more than 8 bits, floats and plain lists to bytes, by one rule for all images.

White follows from the type: 255 for uint8, the full range for wider integers, 1 for floats. A TIFF can declare another
value by BitsPerSample, MaxSampleValue or SMaxSampleValue. No image is scaled by its own maximum, so the brightness of
two images can be compared. If the type misleads, the image is rejected, and the message has the fix.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from mmtrain.errors import ConfigError

KNOB = "data.inputs.image.value_range"
_BITS, _WHITE_IS_ZERO, _MAX_VALUE, _FORMAT, _FLOAT_MAX = 258, 262, 281, 339, 341  # tags of TIFF
_UNSIGNED, _SIGNED = 1, 2  # values of SampleFormat
_TWELVE_BITS = 4095
_DARK = 16  # values below this fraction of the range probably have another range
_CHANNELS = (1, 2, 3, 4)


class ValueRange(NamedTuple):
    """The values that become 0 and 255.

    Attributes:
        black: becomes 0.
        white: becomes 255.
        origin: type: from the type of the values; an almost black image is rejected. file: declared in the file. user:
            values outside of it are clipped.
    """

    black: float
    white: float
    origin: Literal["type", "file", "user"]


def checked_range(value_range: Sequence[float] | None) -> ValueRange | None:
    """Check the range of the configuration.

    Raises:
        ConfigError: if it is not a pair of a smaller and a larger number.
    """
    if value_range is None:
        return None
    if len(value_range) != 2 or not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise ConfigError(
            f"value_range = {list(value_range)} is no pair of a smaller and a larger number; set it to [0,4095], say"
        )
    return ValueRange(value_range[0], value_range[1], "user")


def picture_of_array(values: Any, value_range: ValueRange | None) -> Image.Image:
    """Convert numbers (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels to an image: grey, grey and alpha, RGB, RGBA.

    Args:
        values: an array, or nested lists, whose integers have 8 bits.
        value_range: range from the user; it applies to everything except arrays of uint8.

    Raises:
        ValueError: if they are not an image, or outside of the range of their type.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{array.dtype} values are no pixels; give numbers")
    array = _channels_last(array)
    if array.dtype.kind == "b":
        return _of_bytes(array.astype(np.uint8) * np.uint8(255))
    if isinstance(values, np.ndarray) and array.dtype == np.uint8:
        return _of_bytes(array)
    is_typed = isinstance(values, np.ndarray) and array.dtype != np.int64  # Arrow makes any list of integers int64
    result = value_range or _range_of_type(array.dtype if is_typed or array.dtype.kind == "f" else np.dtype(np.uint8))
    name = str(array.dtype) if is_typed else "float" if array.dtype.kind == "f" else "integer"
    _check([_without_alpha(array)], name, result)
    return _of_bytes(_to_bytes(array, result))


def deep_range(picture: Image.Image, value_range: ValueRange | None) -> ValueRange | None:
    """The range of an image file of more than 8 bits or of floats, before decoding; None for 8 bits.

    Args:
        picture: as opened by Pillow.
        value_range: range from the user.
    """
    is_color = picture.mode[:1] not in ("I", "F")
    if is_color and not _drops_low_bytes(picture):
        return None
    if value_range is not None:
        return value_range
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return _range_of_tiff(picture)
    if picture.mode == "F":
        return ValueRange(0, 1, "type")
    # Pillow scales PGM and JPEG 2000 to 16 bits by the depth in their headers
    return ValueRange(0, 65535, "file" if picture.format in ("PPM", "JPEG2000") else "type")


def check_picture(strips: Iterable[Image.Image], picture: Image.Image, value_range: ValueRange) -> None:
    """Reject an image with a range of `deep_range` if its values are outside of it.

    Args:
        strips: the decoded image in parts.
        picture: the image as opened by Pillow.
        value_range: the result of `deep_range`.

    Raises:
        ValueError: with the type, the range and the fix.
    """
    if picture.mode[:1] in ("I", "F"):
        values = (values_of(strip, picture) for strip in strips)
        _check(values, _type_of(picture), value_range)
        return
    # Of 16-bit colours Pillow keeps the upper byte
    if (value_range.black, value_range.white) != (0, 65535):
        raise ValueError(
            f"colours of 16 bits are read by their upper byte, so that value_range = [{value_range.black:g},"
            f" {value_range.white:g}] cannot be met; save the picture with 8 bits a channel"
        )
    highest = max(int(_without_alpha(np.asarray(strip)).max()) for strip in strips)
    if 0 < highest < 256 // _DARK and value_range.origin == "type":
        raise ValueError(
            "holds colours of 16 bits that fit 12 bits; the full range is 0..65535; save it with 8 bits a channel,"
            f" or set {KNOB}=[0,65535] if it is that dark"
        )


def values_of(strip: Image.Image, picture: Image.Image) -> np.ndarray:
    """The numbers (H, W) of a part of an image of mode I or F."""
    values = np.asarray(strip)
    tags = _tags(picture)
    if values.dtype == np.int32 and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED and 32 in tags.get(_BITS, ()):
        values = values.view(np.uint32)  # Pillow stores unsigned integers as signed ones
    return values


def to_bytes(strip: Image.Image, picture: Image.Image, value_range: ValueRange) -> Image.Image:
    """A part of an image of mode I or F, in 8-bit grey."""
    grey = _to_bytes(values_of(strip, picture), value_range)
    return Image.fromarray(255 - grey if _tags(picture).get(_WHITE_IS_ZERO) == 0 else grey)


def _tags(picture: Image.Image) -> Any:
    return picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}


def _drops_low_bytes(picture: Image.Image) -> bool:
    """Whether Pillow reads 16-bit colours; it keeps only their upper byte."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return max(picture.tag_v2.get(_BITS, (1,))) > 8
    tiles = picture.tile if isinstance(picture, ImageFile.ImageFile) else []
    return any(isinstance(tile.args, str) and ";16" in tile.args for tile in tiles)


def _type_of(picture: Image.Image) -> str:
    tags = _tags(picture)
    if picture.mode == "F":
        return "float"
    if tags:
        is_signed = tags.get(_FORMAT, (_UNSIGNED,))[0] == _SIGNED
        return f"{'int' if is_signed else 'uint'}{tags.get(_BITS, (1,))[0]}"
    return "uint16" if picture.format else "int32"


def _range_of_tiff(picture: TiffImagePlugin.TiffImageFile) -> ValueRange:
    tags = picture.tag_v2
    bits = tags.get(_BITS, (1,))[0] - (tags.get(_FORMAT, (_UNSIGNED,))[0] == _SIGNED)
    full = 1 if picture.mode == "F" else 2**bits - 1
    stated = float(np.max(tags.get(_FLOAT_MAX, tags.get(_MAX_VALUE, full))))
    # Some programs write the maximum of the image there, which is not a scale; a value of 2^n - 1 is a depth
    if stated != full and stated >= 255 and np.log2(stated + 1).is_integer():
        return ValueRange(0, stated, "file")
    return ValueRange(0, full, "type" if picture.mode == "F" or bits in (15, 16, 31, 32) else "file")


def _range_of_type(dtype: np.dtype[Any]) -> ValueRange:
    white = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    return ValueRange(0, white, "type")


def _channels_last(array: np.ndarray) -> np.ndarray:
    if 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} has no pixels")
    if array.ndim == 2:
        return array
    if array.ndim == 3 and array.shape[2] in _CHANNELS:
        return array[..., 0] if array.shape[2] == 1 else array
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    raise ValueError(
        f"an array of shape {array.shape} is no picture; give (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels"
    )


def _without_alpha(array: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C)."""
    return array[..., :-1] if array.ndim == 3 and array.shape[2] in (2, 4) else array


def _of_bytes(array: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, C), uint8."""
    return Image.fromarray(np.ascontiguousarray(array))


def _to_bytes(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """uint8; values outside of a range from the user are clipped."""
    black, white, _ = value_range
    scaled = (values.astype(np.float64) - black) * (255 / (white - black))
    return np.asarray(scaled.round().clip(0, 255).astype(np.uint8))


def _check(parts: Iterable[np.ndarray], name: str, value_range: ValueRange) -> None:
    """Reject values that are not finite, and values that cannot belong to an undeclared range.

    Args:
        parts: all values, without alpha.
        name: name of their type, for messages.
        value_range: their range.

    Raises:
        ValueError: with the type, the range and the fix.
    """
    lows, highs = [], []
    for part in parts:
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise ValueError(f"holds {name} values; {np.count_nonzero(~np.isfinite(part))} of them are not finite")
        lows.append(float(part.min()))
        highs.append(float(part.max()))
    low, high = min(lows), max(highs)
    black, white, origin = value_range
    if origin == "user":
        return
    values = f"holds {name} values from {low:g} to {high:g}"
    if low < black or high > white:
        raise ValueError(f"{values}, but they are read as {black:g}..{white:g}; set {KNOB}={_usual(low, high)}")
    dark = _TWELVE_BITS if white > _TWELVE_BITS else white / _DARK
    if origin == "type" and "float" not in name and 0 < high <= max(dark, white / _DARK):
        raise ValueError(
            f"{values}, and would be nearly black in {black:g}..{white:g}; set {KNOB}={_usual(low, high)},"
            f" or {KNOB}=[{black:g},{white:.0f}] if it is that dark"
        )


def _usual(low: float, high: float) -> str:
    """A range to set for such values."""
    if -1 <= low < 0 and high <= 1:
        return "[-1,1]"
    white = 2 ** int(np.ceil(high)).bit_length() - 1 if low >= 0 else int(np.ceil(high))
    return f"[{min(0, int(np.floor(low)))},{white}]"
