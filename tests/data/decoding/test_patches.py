"""Images of any shape as patches, against the image processor of SigLIP 2."""

import pytest
import torch
from PIL import Image
from transformers import Siglip2ImageProcessor

from mmtrain.build import compose
from mmtrain.config.instantiate import make
from mmtrain.data.decoding.patches import grid_of, patch_grid
from mmtrain.data.inputs.image import ImageInput
from mmtrain.errors import ConfigError

SHAPES = [(7, 301), (301, 7), (64, 64), (480, 640), (1, 1), (1000, 30)]


def image_input(**options: int | float | str | None) -> ImageInput:
    given = {"size": 64, "resize_size": "null", "interpolation": "bilinear", "crop_offset": "round"}
    given |= {"mean": "[0.5,0.4,0.3]", "std": "[0.2,0.3,0.4]", "resize_backend": "torch"}
    given |= {"max_patches": 40, "patch_size": 8} | options
    cfg = compose([f"data.inputs.image.{key}={value}" for key, value in given.items()])
    result: ImageInput = make(cfg.data.inputs.image, "image")
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("max_patches", [1, 40, 256])
def test_patches_are_those_of_the_library(shape: tuple[int, int], max_patches: int) -> None:
    width, height = shape
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(pixels.numpy())
    kind = image_input(max_patches=max_patches)
    found = kind.load(picture, None, seed=0, train=False)[0]  # type: ignore[arg-type]
    options = {"patch_size": 8, "max_num_patches": max_patches, "image_mean": [0.5, 0.4, 0.3]}
    theirs = Siglip2ImageProcessor(**options, image_std=[0.2, 0.3, 0.4])(images=picture, return_tensors="pt")
    rows, columns = theirs["spatial_shapes"][0].tolist()
    assert patch_grid(height, width, patch_size=8, max_patches=max_patches) == (rows, columns)
    assert len(found) == rows * columns == int(theirs["pixel_attention_mask"].sum())
    torch.testing.assert_close(found[:, :-2], theirs["pixel_values"][0, : len(found)], atol=1e-6, rtol=1e-6)
    batch = kind.pad([found, None, found[:1]])
    assert batch.mask is not None and batch.mask.sum(dim=1).tolist() == [len(found), 0, 1]
    assert grid_of(batch.values, batch.mask).tolist() == [[rows, columns], [1, 1], [1, 1]]


def test_training_flips_and_keeps_the_shape() -> None:
    kind = image_input(flip=1.0)
    picture = Image.linear_gradient("L").convert("RGB").rotate(90).resize((90, 40))
    plain, flipped = (kind.load(picture, None, seed=1, train=train)[0] for train in (False, True))  # type: ignore[arg-type]
    assert plain.shape == flipped.shape and not torch.equal(plain, flipped)


def test_both_keys_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"max_patches = 40 and patch_size = None belong together"):
        image_input(patch_size="null")
