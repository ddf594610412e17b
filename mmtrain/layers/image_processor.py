"""Image and video preprocessing of pretrained weights, as keys of `mmtrain.data.decoding.geometry.Geometry`.

The settings come from the processors of transformers and from what timm and torchvision publish with their weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from timm.data import resolve_data_config
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers import AutoImageProcessor, AutoVideoProcessor

from mmtrain.layers.transformers_model import transformers_settings

TORCH_FILTERS = ("nearest-exact", "bilinear", "bicubic")  # that the torch backend of transformers applies
# Pillow's filter numbers are indices into this tuple of torchvision's names; torchvision's "nearest" is not Pillow's
FILTERS = ("nearest-exact", "lanczos", "bilinear", "bicubic", "box", "hamming")
_WARPS = 384  # ConvNeXt's processor resizes to a square, without crop, from this size on
_PROBES = ((64, 96), (100, 60))  # height and width of the images that a processor is tried on
_CLOSE = 0.03  # relative difference of pixels; the library's two backends differ by 0.001 on such images


def image_settings(pretrained: str) -> dict[str, Any]:
    """Return keys of data.inputs.image with the settings of a checkpoint's image processor (transformers).

    Raises:
        ValueError: if it cannot be read, or needs preprocessing that the inputs of this project do not support.
    """
    processor = _read(pretrained, AutoImageProcessor)
    settings = _settings(pretrained, processor.to_dict())
    is_torch = getattr(processor, "backend", "pil") == "torchvision" and settings["interpolation"] in TORCH_FILTERS
    settings["resize_backend"] = "torch" if is_torch else "pillow"
    _try(pretrained, processor, settings)
    return settings


def naflex_settings(pretrained: str) -> dict[str, Any]:
    """Return keys of data.inputs.image with the settings of a processor that cuts images of any shape into patches.

    Raises:
        ValueError: if it cannot be read.
    """
    processor = _read(pretrained, AutoImageProcessor)
    options = processor.to_dict()
    patch_size, most = int(options["patch_size"]), int(options["max_num_patches"])
    interpolation = FILTERS[int(options["resample"])]
    is_torch = getattr(processor, "backend", "pil") == "torchvision" and interpolation in TORCH_FILTERS
    return {
        "max_patches": most,
        "patch_size": patch_size,
        "size": patch_size * math.isqrt(most),
        "interpolation": interpolation,
        "resize_backend": "torch" if is_torch else "pillow",
        "mean": _by_channel(options["image_mean"]),
        "std": _by_channel(options["image_std"]),
    }


def video_settings(pretrained: str) -> dict[str, Any]:
    """Return keys of data.inputs.video with the settings of the video processor, or of an older image processor.

    Raises:
        ValueError: as in `image_settings`.
    """
    try:
        processor = _read(pretrained, AutoVideoProcessor)
    except ValueError:
        processor = _read(pretrained, AutoImageProcessor)
    return _settings(pretrained, processor.to_dict())


def _read(pretrained: str, auto: Any) -> Any:
    """Return the processor; its `to_dict` includes the defaults of its class."""
    return transformers_settings(pretrained, lambda name: (auto.from_pretrained(name, trust_remote_code=False), None))


def _try(pretrained: str, processor: Any, settings: Mapping[str, Any]) -> None:
    """Compare the processor's pixels with those that its settings give here.

    A processor of another model family may do more than the settings say: pad, swap channels, or crop in its own way.

    Raises:
        ValueError: if they differ.
    """
    for height, width in _PROBES:
        image = _probe(height, width)
        try:
            result = processor(images=image, return_tensors="pt")["pixel_values"][0]
        except NotImplementedError:  # the library's torchvision backend does not have all filters of Pillow
            return
        theirs, ours = torch.as_tensor(result), _prepared(image, settings)
        if theirs.shape == ours.shape and (theirs - ours).norm() < _CLOSE * ours.norm():
            continue
        raise ValueError(
            f"the processor of pretrained = {pretrained} ({type(processor).__name__}) prepares images in a way that the"
            f" inputs of this project do not support: {width} x {height} pixels become {tuple(theirs.shape)},"
            f" here {tuple(ours.shape)} with other values\n"
            "    set pretrained to a folder whose preprocessor_config.json has a processor of the model's own family"
        )


def _probe(height: int, width: int) -> np.ndarray:
    """Return a smooth image (H, W, 3), uint8, that shows a crop, a shift and a swap of channels."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    waves = [200 * x + 0 * y, 200 * y + 0 * x, 40 * np.sin(9 * x + 7 * y) + 90]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def _prepared(image: np.ndarray, settings: Mapping[str, Any]) -> Tensor:
    """Return the pixels (3, size, size), as the inputs of this project prepare them."""
    resized, size = settings["resize_size"], settings["size"]
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    kept = [resized] if isinstance(resized, int) else resized
    mode = InterpolationMode(settings["interpolation"])
    if settings["resize_backend"] == "torch":
        x = F.resize(pixels.contiguous(), kept, interpolation=mode, antialias=True)
    else:
        x = F.pil_to_tensor(F.resize(F.to_pil_image(pixels), kept, interpolation=mode))
    x = F.to_dtype(x, torch.float32, scale=True)
    top, left = (int((side - size) / 2) for side in x.shape[-2:])
    return F.normalize(F.crop(x, top, left, size, size), settings["mean"], settings["std"])


def _settings(pretrained: str, processor: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(processor.get("video_processor_type") or processor.get("image_processor_type"))
    scale, offset = 255.0, 0.0
    if processor.get("do_rescale", True):
        scale *= processor.get("rescale_factor", 1 / 255)
        offset = float(processor.get("offset", kind.startswith("Vivit")))  # ViViT's pixels are in -1..1
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize", True):
        mean, std = _by_channel(processor["image_mean"]), _by_channel(processor["image_std"])
    settings = {"mean": [(m + offset) / scale for m in mean], "std": [s / scale for s in std]}
    return settings | _geometry(pretrained, processor, kind)


def _by_channel(value: float | Sequence[float]) -> list[float]:
    return [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * 3


def _geometry(pretrained: str, processor: Mapping[str, Any], kind: str) -> dict[str, Any]:
    crop = _side(pretrained, processor["crop_size"]) if processor.get("do_center_crop") else None
    size = processor.get("size") or {}
    if not processor.get("do_resize", True):
        size = {}  # images keep the size that they have
    resized: int | list[int]
    if kind.startswith("ConvNext") and size:  # the size is the one after its own crop
        crop = crop or size["shortest_edge"]
        edge = size["shortest_edge"]
        resized = int(edge / processor["crop_pct"]) if edge < _WARPS else [edge, edge]
    elif size.get("height") and size.get("width"):
        resized = [size["height"], size["width"]]
        crop = crop or _side(pretrained, size)
    elif size.get("shortest_edge") and not size.get("longest_edge"):
        resized = int(size["shortest_edge"])
        crop = crop or resized
    else:
        raise ValueError(
            f"the processor of pretrained = {pretrained} ({kind}) resizes images to {dict(size) or 'no fixed size'};"
            " this encoder accepts squares of one size\n    set pretrained to a checkpoint with a fixed size"
        )
    resample = processor.get("resample")
    interpolation = "bilinear" if resample is None else FILTERS[int(resample)]
    return {"size": crop, "resize_size": resized, "interpolation": interpolation, "crop_offset": "floor"}


def _side(pretrained: str, size: Mapping[str, Any]) -> int:
    if size.get("height") != size.get("width") or not size.get("height"):
        raise ValueError(
            f"pretrained = {pretrained} was trained on images of {dict(size)}; this encoder accepts squares\n"
            "    set pretrained to a checkpoint that was trained on squares"
        )
    return int(size["height"])


def timm_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return keys of data.inputs.image with the settings of timm's evaluation transforms.

    Raises:
        ValueError: for images that are not square or get borders.
    """
    wanted = resolve_data_config(pretrained_cfg=dict(config))
    _, height, width = wanted["input_size"]
    if height != width or wanted["crop_mode"] == "border":
        raise ValueError(
            f"timm's {name} was trained on images of {height} x {width} (crop_mode {wanted['crop_mode']});"
            " this encoder accepts squares without borders; choose another model"
        )
    scaled = math.floor(height / wanted["crop_pct"])
    return {
        "mean": list(wanted["mean"]),
        "std": list(wanted["std"]),
        "size": height,
        "resize_size": [scaled, scaled] if wanted["crop_mode"] == "squash" else scaled,
        "interpolation": wanted["interpolation"],
        "crop_offset": "round",
    }


def processor_options(
    *, size: int, resized: int | Sequence[int], interpolation: str, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Return the options of a transformers processor with the same result; its centre crop rounds like `floor`.

    Args:
        size: height and width of the model's input.
        resized: length of the shortest side before the centre crop, or height and width.
        interpolation: torchvision's name of the filter.
        mean: mean per channel, for pixels in 0..1.
        std: standard deviation per channel, for pixels in 0..1.
    """
    wanted = {"height": size, "width": size}
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": resized}
        if isinstance(resized, int)
        else dict(zip(("height", "width"), resized, strict=True)),
        "resample": FILTERS.index("nearest-exact" if interpolation == "nearest" else interpolation),
        "do_center_crop": isinstance(resized, int) or list(resized) != [size, size],
        "crop_size": wanted,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def timm_options(
    *, size: int, resized: int | Sequence[int], interpolation: str, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Return timm's configuration for weights with this preprocessing; arguments as in `processor_options`.

    Raises:
        ValueError: for a resize to unequal sides.
    """
    sides = {resized} if isinstance(resized, int) else set(resized)
    if len(sides) > 1:
        raise ValueError(f"timm cannot resize images to {list(sides)}")
    return {
        "input_size": [3, size, size],
        "crop_pct": _crop_pct(size, sides.pop()),
        "crop_mode": "center" if isinstance(resized, int) else "squash",
        "interpolation": "nearest" if interpolation == "nearest-exact" else interpolation,
        "mean": list(mean),
        "std": list(std),
    }


def _crop_pct(size: int, resized: int) -> float:
    """Return the crop fraction from which timm, which rounds down, computes `resized` again.

    >>> _crop_pct(224, 256), _crop_pct(64, 64)
    (0.875, 1.0)
    """
    exact = size / resized
    return exact if math.floor(size / exact) == resized else size / (resized + 0.25)
