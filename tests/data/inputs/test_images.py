"""Several pictures a row."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.images import ImagesInput
from mmtrain.errors import SampleError

OPTIONS: dict[str, Any] = {
    "size": 4,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "crop_scale": 0.3,
    "rotate": 0.0,
    "flip": 0.0,
    "color_jitter": 0.0,
    "background": [255] * 3,
    "max_pixels": 1000,
    "max_images": 3,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        pixels = torch.randint(256, (6, 6, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")
    return tmp_path


def test_each_is_what_it_is_alone(folder: Path) -> None:
    several, one = ImagesInput(**OPTIONS), ImageInput(**{k: v for k, v in OPTIONS.items() if k != "max_images"})
    names = ["2.png", "0.png"]
    pixels, key = several.load([names[0], None, names[1]], folder, seed=0, train=False)
    alone = [one.load(name, folder, seed=0, train=False)[0] for name in names]
    assert torch.equal(pixels, torch.stack(alone)) and several.count(pixels) == 2
    assert key == several.key(names) != several.key(names[::-1])
    assert torch.equal(several.load("0.png", folder, seed=0, train=False)[0], alone[1].unsqueeze(0))


def test_each_is_drawn_by_itself(folder: Path) -> None:
    several = ImagesInput(**OPTIONS)
    pixels, _ = several.load(["1.png", "1.png"], folder, seed=0, train=True)
    assert not torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels, several.load(["1.png", "1.png"], folder, seed=0, train=True)[0])


def test_rows_are_filled_up(folder: Path) -> None:
    several = ImagesInput(**OPTIONS)
    values = [several.load(names, folder, seed=0, train=False)[0] for names in (["0.png"], ["1.png", "2.png"])]
    padded = several.pad([values[0], None, values[1]])
    assert padded.values.shape == (3, 2, 3, 4, 4)
    assert padded.mask is not None and padded.mask.tolist() == [[True, False], [False, False], [True, True]]
    assert not padded.values[0, 1].any() and not padded.values[1].any()
    assert several.pad([None]).values.shape == (1, 1, 3, 4, 4)


def test_one_that_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(SampleError, match=r"9\.png: cannot be read as a picture"):
        ImagesInput(**OPTIONS).load(["0.png", "9.png"], folder, seed=0, train=False)
    assert ImagesInput(**OPTIONS).open(["0.png", "9.png"], folder).size == (6, 6)


def test_more_than_may_be_are_not_read(folder: Path) -> None:
    reader = ImagesInput(**OPTIONS)
    assert len(reader.load(["0.png", None, "1.png", "2.png", ""], folder, seed=0, train=False)[0]) == 3
    with pytest.raises(SampleError, match="4 pictures: are more than max_images = 3"):
        reader.load(["0.png"] * 4, folder, seed=0, train=False)
    with pytest.raises(ValueError, match="max_images = 0; set it to 1 or more"):
        ImagesInput(**OPTIONS | {"max_images": 0})
