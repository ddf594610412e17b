"""Converts images and videos of any shape to squares: resized and cropped, in training with random draws.

Training and evaluation share one geometry, so an encoder is evaluated on what it was trained on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from annotated_types import Len
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from mmtrain.annotations import Size
from mmtrain.errors import ConfigError

# the values of torchvision's InterpolationMode
Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "box", "hamming"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
CropOffset = Literal["round", "floor"]
CROP_OFFSETS: tuple[CropOffset, ...] = get_args(CropOffset)
ResizeBackend = Literal["pillow", "torch", "open_clip"]
RESIZE_BACKENDS: tuple[ResizeBackend, ...] = get_args(ResizeBackend)
TORCH_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic")
_RATIO = (0.9, 1.1)  # width over height of a random crop


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Resize, then crop the centre.

    Attributes:
        size: height and width in pixels of the model's input.
        resize_size: size before the centre crop: pixels of the shortest side, or [height, width] for any shape, as in
            torchvision's Resize. None for `size`.
        interpolation: one of `INTERPOLATIONS`.
        crop_offset: position of the centre if the remainder is odd. round: as in torchvision and timm; floor: as in
            transformers.
        resize_backend: library that resizes images; pixels differ by up to a few levels. pillow: as timm and
            torchvision. torch: as the processors of transformers 5. open_clip: pillow, but CMYK is resized before it
            is converted to RGB. Videos are always resized by torch.
    """

    size: int
    resize_size: Size | Annotated[Sequence[Size], Len(1, 2)] | None
    interpolation: Interpolation
    crop_offset: CropOffset
    resize_backend: ResizeBackend = "pillow"

    def __post_init__(self) -> None:
        resized = [self.resize_size] if isinstance(self.resize_size, int | None) else list(self.resize_size)
        wrong = [n for n in resized if n is not None and (not isinstance(n, int) or n < 1)]
        if wrong or len(resized) > 2:
            raise ConfigError(
                f"resize_size = {self.resize_size}; set it to the pixels of the shortest side, to [height, width],"
                " or to auto"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation = {self.interpolation}; set it to {', '.join(INTERPOLATIONS)}, or auto")
        if self.crop_offset not in CROP_OFFSETS:
            raise ConfigError(f"crop_offset = {self.crop_offset}; set it to {', '.join(CROP_OFFSETS)}, or auto")
        if self.resize_backend not in RESIZE_BACKENDS:
            fix = f"set it to {', '.join(RESIZE_BACKENDS)}, or auto"
            raise ConfigError(f"resize_backend = {self.resize_backend}; {fix}")
        if self.resize_backend == "torch" and self.interpolation not in TORCH_FILTERS:
            raise ConfigError(
                f"resize_backend = torch, which has no {self.interpolation} filter; set resize_backend to pillow"
            )

    @property
    def resized(self) -> int | list[int]:
        """The size after resizing: of the shortest side, or of both."""
        if self.resize_size is None:
            return self.size
        if isinstance(self.resize_size, int):
            return self.resize_size
        return list(self.resize_size) if len(self.resize_size) == 2 else self.resize_size[0]

    @property
    def scaled_side(self) -> int:
        """The size of the shortest side after resizing, if the shape is kept; otherwise 1."""
        return self.resized if isinstance(self.resized, int) else 1

    def evaluation(self) -> list[v2.Transform]:
        """The transforms of evaluation, and of training without random crops."""
        resize = v2.Resize(self.resized, InterpolationMode(self.interpolation), antialias=True)
        return [resize, v2.CenterCrop(self.size) if self.crop_offset == "round" else FloorCrop(self.size)]

    def training(self, crop_scale: float) -> list[v2.Transform]:
        """The transforms of training: a random crop that keeps at least `crop_scale` of the area; no crop for 1."""
        return self.evaluation() if crop_scale >= 1 else [RandomCrop(self, crop_scale)]


class FloorCrop(v2.Transform):
    """Crop the centre, one pixel further up and left than torchvision if they differ; small images get zeros around.

    Args:
        size: height and width in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Position of the upper left corner."""
        height, width = F.get_size(flat_inputs[0])
        return {"top": int((height - self.size) / 2), "left": int((width - self.size) / 2)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop the image."""
        return self._call_kernel(F.crop, inpt, **params, height=self.size, width=self.size)


class RandomCrop(v2.RandomResizedCrop):
    """A random crop that is resized to a square (1409.4842), for images of any shape.

    Unusual: area and ratio refer to the image after the resizing of evaluation. The area is that of its largest square,
        so
    the crop of a long image can be anywhere along it. torchvision's crop refers to the complete image. It finds no crop
    in a long image and falls back to the centre. On square images both are bit-identical.

    Args:
        geometry: geometry of evaluation.
        crop_scale: minimum fraction of the area that a crop keeps.
    """

    def __init__(self, geometry: Geometry, crop_scale: float) -> None:
        interpolation = InterpolationMode(geometry.interpolation)
        super().__init__(geometry.size, scale=(crop_scale, 1.0), ratio=_RATIO, interpolation=interpolation)
        self.resized = geometry.resized

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Upper left corner, height and width, in pixels of the image."""
        height, width = F.get_size(flat_inputs[0])
        rows, columns = (height, width) if isinstance(self.resized, int) else self.resized
        tall, wide = height / rows, width / columns  # pixels of the image per pixel of the resized one
        side = min(rows, columns)
        low, high = self._log_ratio.tolist()
        for _ in range(10):
            area = side * side * torch.empty(1).uniform_(self.scale[0], self.scale[1]).item()
            ratio = torch.exp(torch.empty(1).uniform_(low, high)).item()
            w = round(math.sqrt(area * ratio) * wide)
            h = round(math.sqrt(area / ratio) * tall)
            if 0 < w <= width and 0 < h <= height:
                top = int(torch.randint(0, height - h + 1, size=(1,)))
                left = int(torch.randint(0, width - w + 1, size=(1,)))
                return {"top": top, "left": left, "height": h, "width": w}
        h, w = max(1, round(side * tall)), max(1, round(side * wide))
        return {"top": (height - h) // 2, "left": (width - w) // 2, "height": h, "width": w}
