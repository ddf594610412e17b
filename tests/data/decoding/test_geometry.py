"""How pictures become squares: the same in training and evaluation, and random crops of every shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from transformers import CLIPImageProcessor
from transformers.image_utils import SizeDict

from mmtrain.data.decoding.geometry import FloorCrop, Geometry, RandomCrop
from mmtrain.errors import ConfigError, SampleError
from tests.data.inputs.test_video import video_input
from tests.data.parts import plain_image_input

SHAPES = [(64, 64), (640, 480), (480, 640), (1024, 576), (200, 150), (1000, 500), (41, 30)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def geometry(**changed: Any) -> Geometry:
    plain: dict[str, Any] = {"size": 32, "resize_size": None, "interpolation": "bilinear", "crop_offset": "round"}
    return Geometry(**plain | changed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize_size", [None, 40, [32, 32], [36, 48]])
def test_without_random_crops_training_shows_what_evaluation_shows(
    shape: tuple[int, int], resize_size: int | list[int] | None
) -> None:
    picture = noise(*shape)
    options = {"size": 32, "resize_size": resize_size, "interpolation": "bicubic", "crop_offset": "floor"}
    image, video = plain_image_input(**options), video_input(**options)
    for reader, cell in ((image, picture), (video, [picture] * 4)):
        train, test = (reader.load(cell, Path(), seed=3, train=is_train)[0] for is_train in (True, False))
        assert torch.equal(train, test)


@pytest.mark.parametrize("side", [7, 64, 72, 100])
@pytest.mark.parametrize("crop_scale", [0.05, 0.6, 0.85])
def test_random_crops_of_square_pictures_are_torchvisions(side: int, crop_scale: float) -> None:
    picture = noise(side, side)
    theirs = v2.RandomResizedCrop(32, scale=(crop_scale, 1.0), ratio=(0.9, 1.1), antialias=True)
    (ours,) = geometry().training(crop_scale)
    for seed in range(30):
        torch.manual_seed(seed)
        result, state = np.asarray(ours(picture)), torch.get_rng_state()
        torch.manual_seed(seed)
        assert np.array_equal(result, np.asarray(theirs(picture)))
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1024, 576), (1000, 500), (500, 1000), (2000, 100)])
@pytest.mark.parametrize("resize_size", [None, [32, 32]])
def test_random_crops_of_long_pictures_lie_anywhere(width: int, height: int, resize_size: list[int] | None) -> None:
    crop, picture = RandomCrop(geometry(resize_size=resize_size), 0.6), Image.new("RGB", (width, height))
    torch.manual_seed(0)
    boxes = [crop.make_params([picture]) for _ in range(100)]
    assert len({tuple(box.values()) for box in boxes}) > 95
    seen = [min(width, height)] * 2 if resize_size is None else [height, width]
    for box in boxes:
        assert 0 <= box["top"] <= height - box["height"] and 0 <= box["left"] <= width - box["width"]
        assert box["height"] * box["width"] > 0.55 * seen[0] * seen[1]
        ratio = (box["width"] / seen[1]) / (box["height"] / seen[0])
        assert 0.87 < ratio < 1.14  # integer pixels of the short side
    length, total = ("left", width) if width > height else ("top", height)
    if resize_size is None:  # along the long side they reach both ends
        assert min(box[length] for box in boxes) < 0.2 * total
        assert max(box[length] + min(width, height) for box in boxes) > 0.8 * total


@pytest.mark.parametrize(("width", "height"), [(31, 32), (35, 32), (32, 35), (36, 39), (20, 40), (27, 27)])
def test_the_centre_is_where_the_libraries_have_it(width: int, height: int) -> None:
    picture = noise(width, height)
    rounded = np.asarray(v2.Compose(geometry(resize_size=[height, width]).evaluation())(picture))
    assert np.array_equal(rounded, np.asarray(v2.CenterCrop(32)(picture)))
    result = np.asarray(FloorCrop(32)(picture))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    expected = CLIPImageProcessor().center_crop(pixels, SizeDict(height=32, width=32)).permute(1, 2, 0)
    assert np.array_equal(result, expected.numpy())


def test_a_long_picture_may_be_squashed_but_not_enlarged() -> None:
    line = Image.new("RGB", (4000, 2))
    squashed = plain_image_input(size=32, resize_size=[32, 32], max_pixels=10_000)
    assert squashed.load(line, Path(), seed=0, train=True)[0].shape == (3, 32, 32)
    with pytest.raises(SampleError, match="it would have 2,048,000 pixels, more than max_pixels"):
        plain_image_input(size=8, resize_size=32, max_pixels=10_000).load(line, Path(), seed=0, train=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resize_size": 0}, r"resize_size = 0; set it to the pixels of the shortest side"),
        ({"resize_size": [3, 4, 5]}, r"resize_size = \[3, 4, 5\]; set it"),
        ({"interpolation": "cubic"}, r"interpolation = cubic; set it to nearest, .*bicubic, .* or auto"),
        ({"crop_offset": "ceil"}, r"crop_offset = ceil; set it to round, floor, or auto"),
    ],
)
def test_a_geometry_that_there_is_not_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_image_input(**changed)


def test_films_have_no_filter_of_pillow_alone() -> None:
    with pytest.raises(ConfigError, match="interpolation = hamming is for pictures"):
        video_input(interpolation="hamming")
