"""Several images per row, each with its own place in a dialogue: a list of values of an image column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from PIL import Image
from torch import Tensor

from mmtrain.annotations import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Size
from mmtrain.data.decoding.geometry import CropOffset, Interpolation, ResizeBackend
from mmtrain.data.inputs.image import ImageInput, key_of
from mmtrain.data.order import mix
from mmtrain.data.tables.columns import is_empty
from mmtrain.errors import SampleError
from mmtrain.types import Padded


class ImagesInput(ImageInput):
    """A column of lists of images, or of single ones; `ImageInput` describes images and their preprocessing.

    In training each image has its own random crop and rotation.

    Args:
        max_images: rows with more images are not read, because every row of a batch is padded to the maximum.
        options: options of `ImageInput`, for each image.

    Raises:
        ValueError: if max_images is 0.
    """

    kind = "images"

    def __init__(
        self,
        *,
        max_images: Size,
        size: Size,
        mean: Sequence[float],
        std: Sequence[PositiveFloat],
        crop_scale: Fraction,
        rotate: NonNegativeFloat,
        flip: Fraction,
        color_jitter: NonNegativeFloat,
        background: Sequence[Annotated[int, Ge(0), Le(255)]],
        max_pixels: PositiveInt,
        value_range: Sequence[float] | None = None,
        resize_size: Size | Annotated[Sequence[Size], Len(1, 2)] | None = None,
        interpolation: Interpolation = "bilinear",
        crop_offset: CropOffset = "round",
        resize_backend: ResizeBackend = "pillow",
    ) -> None:
        super().__init__(
            size=size,
            mean=mean,
            std=std,
            crop_scale=crop_scale,
            rotate=rotate,
            flip=flip,
            color_jitter=color_jitter,
            background=background,
            max_pixels=max_pixels,
            value_range=value_range,
            resize_size=resize_size,
            interpolation=interpolation,
            crop_offset=crop_offset,
            resize_backend=resize_backend,
        )
        if max_images < 1:
            raise ValueError(f"max_images = {max_images}; set it to 1 or more")
        self.max_images = max_images

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int]:
        """The images (N, 3, size, size), float32, and the key of all of them; gaps in the list are skipped.

        Raises:
            SampleError: if one cannot be read, or there are too many.
        """
        pictures = pictures_of(value)
        if len(pictures) > self.max_images:
            raise SampleError(f"{len(pictures)} pictures", f"are more than max_images = {self.max_images}")
        loaded = [
            super(ImagesInput, self).load(picture, folder, seed=mix(seed, number), train=train)[0]
            for number, picture in enumerate(pictures)
        ]
        return torch.stack(loaded), self.key(value)

    def key(self, value: Any) -> int:
        """The key of a cell's content: of the images in order."""
        return key_of(" ".join(str(key_of(picture)) for picture in pictures_of(value)))

    def open(self, value: Any, folder: Path) -> Image.Image:
        """An image; of a list the first one, for a report."""
        return super().open(pictures_of(value)[0], folder)

    def count(self, value: Tensor) -> int:
        """The number of images in a value from `load`."""
        return len(value)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """(B, N, 3, size, size), with zeros after the last image of a row, and the mask (B, N)."""
        most = max((len(v) for v in values if v is not None), default=1)
        pixels = torch.zeros(len(values), most, 3, self.size, self.size)
        mask = torch.zeros(len(values), most, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                pixels[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(pixels, mask)


def pictures_of(value: Any) -> list[Any]:
    """The images of a cell."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [picture for picture in listed if not is_empty(picture)]
