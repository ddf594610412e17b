"""Pictures: decoded by Pillow, transformed by torchvision v2, normalised floats."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile

import numpy as np
import torch
from annotated_types import Ge, Le, Len
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mmtrain.annotations import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Size
from mmtrain.data.decoding.geometry import CropOffset, Geometry, Interpolation, ResizeBackend
from mmtrain.data.decoding.image_file import open_image, oversize
from mmtrain.data.decoding.numpy_file import array_of, is_numpy
from mmtrain.data.decoding.patches import EXTRA, patch_grid, to_patches
from mmtrain.data.decoding.pixel_values import (
    ValueRange,
    check_picture,
    checked_range,
    deep_range,
    picture_of_array,
    to_bytes,
)
from mmtrain.data.tables.cell_checks import SEVERAL_PICTURES
from mmtrain.data.tables.columns import content_of, is_empty
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.sample_errors import describe_content
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Padded

_MOST_CHANNELS = 4  # of an array
_PIXELS_AT_ONCE = 1 << 24  # that are converted to RGB: transparency and 16 bits take several times the memory


class ImageInput:
    """A picture column: a path relative to the table, bytes, an array, or a picture of `datasets`; or a list of one.

    A path or bytes can be those of a .npy or .npz with an array.

    Of an animated picture it is the first frame. `picture_of_array` of pixel_values.py says what an array can be.

    Args:
        size: height and width in pixels that the model sees.
        mean: by channel, of pixels in 0..1.
        std: by channel.
        resize_size, interpolation, crop_offset, resize_backend: how a picture becomes a square; `Geometry` explains
            them. The defaults are those of runs whose configuration does not have these keys.
        crop_scale: smallest share of the picture's area that a random crop in training keeps; 1 turns it off.
        rotate: training turns the picture by up to so many degrees.
        flip: chance of mirroring in training. Off by default: a caption can say left or right.
        color_jitter: strength of changes of brightness, contrast and saturation in training.
        max_patches: number of patches of an image that keeps its shape; None for squares of `size`. Resizing, crops and
            rotation do not apply then.
        patch_size: height and width of those patches in pixels.
        background: the colour under transparent pixels.
        max_pixels: a larger picture is not decoded, because one can fill the memory.
        value_range: values that become black and white, of floats, of more than 8 bits, and of integers in lists;
            None: the range of their type.

    Attributes:
        augmentations: the random transforms of training.
    """

    kind = "image"

    def __init__(
        self,
        *,
        size: Size,
        mean: Sequence[float],
        std: Sequence[PositiveFloat],
        crop_scale: Fraction,
        rotate: NonNegativeFloat,
        flip: Fraction,
        color_jitter: NonNegativeFloat,
        background: Sequence[Annotated[int, Ge(0), Le(255)]],
        max_pixels: PositiveInt,
        value_range: Sequence[float] | None = None,  # run folders of earlier versions have none
        resize_size: Size | Annotated[Sequence[Size], Len(1, 2)] | None = None,
        interpolation: Interpolation = "bilinear",
        crop_offset: CropOffset = "round",
        resize_backend: ResizeBackend = "pillow",
        max_patches: Size | None = None,
        patch_size: Size | None = None,
    ) -> None:
        if (max_patches is None) != (patch_size is None):
            raise ConfigError(
                f"max_patches = {max_patches} and patch_size = {patch_size} belong together; set both, or null for both"
            )
        self.size = size
        self.max_patches, self.patch_size = max_patches, patch_size
        self.value_range = checked_range(value_range)
        self.geometry = Geometry(
            size=size,
            resize_size=resize_size,
            interpolation=interpolation,
            crop_offset=crop_offset,
            resize_backend=resize_backend,
        )
        self.mean, self.std = list(mean), list(std)
        self.max_pixels = max_pixels
        self.background = tuple(background)
        self.normalize = Normalize(mean, std)
        train: list[Any] = []
        if rotate > 0:
            train.append(v2.RandomRotation(rotate, interpolation=v2.InterpolationMode.BILINEAR, fill=list(background)))
        train += self.geometry.training(crop_scale)
        self._changes: list[Any] = [v2.RandomHorizontalFlip(flip)] if flip > 0 else []
        if color_jitter > 0:
            self._changes.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
        train += self._changes
        self.augmentations = train
        resized_as = [_tensor] if resize_backend == "torch" else []
        self._train = v2.Compose([*resized_as, *train, _pixels, self.normalize])
        self._eval = v2.Compose([*resized_as, *self.geometry.evaluation(), _pixels, self.normalize])

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int]:
        """The picture as the model takes it, and the key of its content.

        It is (3, size, size), float32. With `max_patches` it is (N, patch_size * patch_size * 3 + 2); see `to_patches`.
        """
        if self.max_patches is not None:
            with seeded(seed):
                return self._patches(self.open(value, folder), train=train), self.key(value)
        if not train:
            keeps_cmyk = self.geometry.resize_backend == "open_clip"
            return self._eval(self._open(value, folder, keeps_cmyk=keeps_cmyk)), self.key(value)
        picture = self.open(value, folder)
        with seeded(seed):
            return self._train(picture), self.key(value)

    def _patches(self, picture: Image.Image, *, train: bool) -> Tensor:
        assert self.max_patches is not None and self.patch_size is not None
        budget = {"patch_size": self.patch_size, "max_patches": self.max_patches}
        rows, columns = patch_grid(picture.height, picture.width, **budget)
        size = [rows * self.patch_size, columns * self.patch_size]
        mode = v2.InterpolationMode(self.geometry.interpolation)
        if self.geometry.resize_backend == "torch":
            pixels = F.resize(_tensor(picture), size, interpolation=mode, antialias=True)
        else:
            pixels = _tensor(F.resize(picture, size, interpolation=mode))
        for change in self._changes if train else ():
            pixels = change(pixels)
        return to_patches(self.normalize(pixels), self.patch_size)

    def key(self, value: Any) -> int:
        """The key of a cell's content."""
        return key_of(one_of(value))

    def open(self, value: Any, folder: Path) -> Image.Image:
        """The picture as a person would see it: RGB, on the background, turned as its EXIF says.

        Raises:
            SampleError: when it is missing, outside of the folder, too large or not a picture, and when its values are
                not in their range.
        """
        return self._open(value, folder)

    def _open(self, value: Any, folder: Path, *, keeps_cmyk: bool = False) -> Image.Image:
        """As `open`, but with CMYK as it is, on request."""
        content = content_of(one_of(value))
        try:
            picture = self._opened(content, folder)
            self._check_size(content, picture)
            if keeps_cmyk and picture.mode == "CMYK":
                return ImageOps.exif_transpose(picture)
            values = deep_range(picture, self.value_range)
            if isinstance(content, Image.Image):
                return self._as_seen(ImageOps.exif_transpose(picture), picture, values)
            ImageOps.exif_transpose(picture, in_place=True)
            self._check_size(content, picture)  # that of ICO can be another one than its header says
            return self._as_seen(picture, picture, values)
        except (
            *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, BadZipFile, zlib.error),
            Image.DecompressionBombError,
        ) as error:
            # SyntaxError: a broken PNG; ValueError, TypeError, IndexError: an array that is none, a path with a NUL
            raise SampleError(describe_content(content), f"cannot be read as a picture: {error}") from error

    def _check_size(self, content: Any, picture: Image.Image) -> None:
        reason = oversize(picture.width, picture.height, size=self.geometry.scaled_side, max_pixels=self.max_pixels)
        if reason is not None:
            raise SampleError(describe_content(content), reason)

    def _opened(self, content: Any, folder: Path) -> Image.Image:
        if isinstance(content, Image.Image):
            return content
        if isinstance(content, bytes | str):
            source = content if isinstance(content, bytes) else checked_path(folder, content)
            if not is_numpy(source):
                return open_image(source)
            content = array_of(source, max_elements=_MOST_CHANNELS * self.max_pixels)
        if not isinstance(content, np.ndarray | Tensor | list | tuple):
            raise TypeError("it is no path, no file and no array")
        return picture_of_array(content, self.value_range)

    def _as_seen(self, picture: Image.Image, header: Image.Image, values: ValueRange | None) -> Image.Image:
        """In RGB.

        Args:
            picture: decoded and turned.
            header: the same, as Pillow opened it.
            values: of a picture of more than 8 bits.
        """
        if values is None and picture.mode == "RGB" and "transparency" not in picture.info:
            return picture
        rows = max(1, _PIXELS_AT_ONCE // max(1, picture.width))
        if values is not None:
            check_picture((strip for _, strip in _strips(picture, rows)), header, values)
        if rows >= picture.height:
            return self._converted(picture, header, values)
        canvas = Image.new("RGB", picture.size)
        for box, strip in _strips(picture, rows):
            canvas.paste(self._converted(strip, header, values), box)
        return canvas

    def _converted(self, picture: Image.Image, header: Image.Image, values: ValueRange | None) -> Image.Image:
        if values is not None and picture.mode[:1] in ("I", "F"):  # which Pillow would clip
            return to_bytes(picture, header, values).convert("RGB")
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            below = Image.new("RGBA", picture.size, (*self.background, 255))
            return Image.alpha_composite(below, picture).convert("RGB")
        return picture.convert("RGB")

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Stack; zeros where a row has none. Patches are padded to the longest row, with a mask (B, N)."""
        if self.max_patches is not None and self.patch_size is not None:
            longest = max((len(v) for v in values if v is not None), default=1)
            width = 3 * self.patch_size**2 + EXTRA
            patches, mask = (
                torch.zeros(len(values), longest, width),
                torch.zeros(len(values), longest, dtype=torch.bool),
            )
            for row, value in enumerate(values):
                if value is not None:
                    patches[row, : len(value)] = value
                    mask[row, : len(value)] = True
            return Padded(patches, mask)
        blank = torch.zeros(3, self.size, self.size)
        return Padded(torch.stack([blank if v is None else v for v in values]), None)


class Normalize:
    """Pixels as bytes -> normalised floats.

    Bit by bit what ToDtype and Normalize of torchvision give, in a third of the time: the floats are made in the order
    in which they stay, and changed where they are.

    Args:
        mean: by channel, of pixels in 0..1.
        std: by channel.

    Raises:
        ConfigError: when std is 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if not all(std):
            raise ConfigError(f"std = {list(std)} divides by 0; set each above 0")
        self.mean = torch.tensor(list(mean), dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(list(std), dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W), uint8, in any order in memory -> the same shape, float32, contiguous."""
        floats = pixels.as_subclass(Tensor).to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(1 / 255).sub_(self.mean).div_(self.std)

    def of_floats(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W), float32 in 0..1 -> normalised."""
        return (pixels - self.mean) / self.std

    def undone(self, values: Tensor) -> Tensor:
        """(..., C, H, W), normalised -> float32 in 0..1."""
        return values * self.std + self.mean


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's generator of the CPU, which torchvision draws from, at a seed, and afterwards as it was.

    `torch.manual_seed` would also format a stack trace for CUDA.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _tensor(picture: Image.Image) -> Tensor:
    """(3, H, W), uint8, contiguous."""
    return _pixels(picture).contiguous()


def _pixels(picture: Image.Image | Tensor) -> Tensor:
    """(3, H, W), uint8; of a Pillow image a view of (H, W, 3)."""
    if isinstance(picture, Tensor):
        return picture
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _strips(picture: Image.Image, rows: int) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """Parts of so many rows, each with its box."""
    for top in range(0, picture.height, rows):
        box = (0, top, picture.width, min(top + rows, picture.height))
        yield box, picture.crop(box)


def one_of(value: Any) -> Any:
    """The picture of a cell that can be a list of one.

    Raises:
        SampleError: for a list of several.
    """
    if not isinstance(value, list | tuple) or not any(isinstance(part, str | bytes | Mapping) for part in value):
        return value
    pictures = [part for part in value if not is_empty(part)]
    if len(pictures) != 1:
        raise SampleError(f"{len(pictures)} pictures", f"are more than the image input takes; {SEVERAL_PICTURES}")
    return pictures[0]


def key_of(value: Any) -> int:
    """A hash of a content that is not 0; 63 bits, the same on every machine."""
    value = content_of(value)
    if isinstance(value, Image.Image | np.ndarray):
        value = value.tobytes()
    raw = value if isinstance(value, bytes) else str(value).encode()
    return (int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1) or 1
