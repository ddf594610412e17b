"""Pictures: every mode that Pillow reads becomes RGB as a person would see it, at the size that the model takes."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from mmtrain.data.inputs.image import ImageInput, Normalize, key_of, seeded
from mmtrain.errors import ConfigError, SampleError
from tests.data.parts import image_input, plain_image_input

RED, WHITE = (250, 10, 20), (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def opened(value: object, reader: ImageInput | None = None) -> np.ndarray:
    """(H, W, 3), uint8, as a person would see it."""
    picture = (reader or plain_image_input()).open(value, Path())
    assert picture.mode == "RGB"
    return np.asarray(picture)


def left_red(mode: str, clear: tuple[int, ...]) -> Image.Image:
    """8 x 8: the left half red, the right half as given."""
    picture = Image.new(mode, (8, 8), clear)
    picture.paste((*RED, 255)[: len(clear)], (0, 0, 4, 8))
    return picture


def test_rgb_is_taken_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (opened(encoded(Image.fromarray(pixels))) == pixels).all()


def test_transparent_pixels_show_the_background() -> None:
    data = encoded(left_red("RGBA", (0, 255, 0, 0)))
    assert (opened(data)[:, :4] == RED).all() and (opened(data)[:, 4:] == WHITE).all()
    assert (opened(data, plain_image_input(background=[1, 2, 3]))[:, 4:] == (1, 2, 3)).all()
    half = opened(encoded(left_red("RGBA", (0, 0, 0, 128))))
    assert (abs(half[:, 4:].astype(int) - 127) <= 1).all()


def test_a_palette_with_a_transparent_entry_shows_the_background() -> None:
    picture = left_red("RGB", (0, 255, 0)).quantize(4)
    green = picture.getpixel((7, 0))
    seen = opened(encoded(picture, transparency=green))
    assert (abs(seen[:, :4].astype(int) - RED) <= 2).all() and (seen[:, 4:] == WHITE).all()


def test_a_palette_without_one_keeps_its_colours() -> None:
    seen = opened(encoded(left_red("RGB", (0, 255, 0)).quantize(4)))
    assert (abs(seen[:, 4:].astype(int) - (0, 255, 0)) <= 2).all()


def test_a_transparent_colour_of_rgb_and_grey_shows_the_background() -> None:
    seen = opened(encoded(left_red("RGB", (0, 255, 0)), transparency=(0, 255, 0)))
    assert (seen[:, :4] == RED).all() and (seen[:, 4:] == WHITE).all()
    grey = Image.new("L", (4, 4), 40)
    grey.putpixel((0, 0), 90)
    seen = opened(encoded(grey, transparency=40))
    assert (seen[0, 0] == 90).all() and (seen[1:] == 255).all()


def test_grey_becomes_three_equal_channels() -> None:
    assert (opened(encoded(Image.new("L", (4, 4), 77))) == 77).all()
    seen = opened(encoded(Image.merge("LA", (Image.new("L", (4, 4), 77), Image.new("L", (4, 4), 0)))))
    assert (seen == 255).all()
    assert set(opened(encoded(Image.new("1", (4, 4), 1))).flat) == {255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    seen = opened(encoded(Image.fromarray(ramp), kind))
    assert (abs(seen[..., 0].astype(float) - ramp / 257) <= 0.51).all()
    assert seen.min() == 0 and seen.max() == 255 and (seen[..., 0] == seen[..., 2]).all()


def test_cmyk_becomes_rgb() -> None:
    seen = opened(encoded(Image.new("RGB", (8, 8), RED).convert("CMYK"), "JPEG", quality=95))
    assert (abs(seen.astype(int) - RED) < 12).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(turn: int) -> None:
    upright = left_red("RGB", (0, 255, 0)).resize((8, 4), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = turn
    # what a camera stores is the picture turned back
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if turn == 1 else upright.transpose(Image.Transpose(back[turn]))
    assert (opened(encoded(stored, exif=exif)) == np.asarray(upright)).all()


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), color) for color in (RED, (0, 255, 0), (0, 0, 255))]
    seen = opened(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20))
    assert (abs(seen.astype(int) - RED) < 8).all()


def test_paths_bytes_and_pictures_are_the_same_picture(tmp_path: Path) -> None:
    picture = left_red("RGBA", (0, 0, 0, 0))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in/a.png")
    reader = plain_image_input()
    values = ["in/a.png", str(tmp_path / "in/a.png"), (tmp_path / "in/a.png").read_bytes(), picture]
    loaded = [reader.load(value, tmp_path, seed=0, train=False)[0] for value in values]
    assert all(torch.equal(loaded[0], other) for other in loaded[1:])


@pytest.mark.parametrize(("width", "height"), [(8, 8), (30, 9), (9, 30), (1, 40), (40, 1), (3, 2), (500, 20)])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("crop_scale", [0.5, 1.0])
def test_every_shape_comes_out_square(width: int, height: int, train: bool, crop_scale: float) -> None:
    result, _ = image_input(crop_scale=crop_scale).load(Image.new("RGB", (width, height)), Path(), seed=1, train=train)
    assert result.shape == (3, 8, 8) and result.dtype == torch.float32 and result.isfinite().all()


def test_evaluation_takes_the_middle_of_a_wide_picture() -> None:
    wide = Image.new("RGB", (24, 8), WHITE)
    wide.paste(RED, (8, 0, 16, 8))
    result, _ = plain_image_input().load(wide, Path(), seed=0, train=False)
    assert torch.allclose(result, (torch.tensor(RED) / 255).view(3, 1, 1).expand(3, 8, 8), atol=1e-6)


def test_pixels_are_normalised_by_channel() -> None:
    reader = plain_image_input(mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0])
    result, _ = reader.load(Image.new("RGB", (8, 8), (51, 102, 204)), Path(), seed=0, train=False)
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.8 - 0.3) / 2.0])
    assert torch.allclose(result[:, 3, 4], expected, atol=1e-6)


def test_normalising_is_torchvisions_to_the_last_bit() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).unflatten(2, (16, 16))
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(pixels)
    for stored in (pixels, pixels.to(memory_format=torch.channels_last)):
        result = Normalize(mean, std)(stored)
        assert torch.equal(result, expected) and result.is_contiguous()
    with pytest.raises(ConfigError, match=r"std = \[1, 0, 1\] divides by 0; set each above 0"):
        Normalize(mean, [1, 0, 1])


def test_the_generator_is_put_back_even_after_an_error() -> None:
    state = torch.get_rng_state()
    with contextlib.suppress(ZeroDivisionError), seeded(3):
        assert torch.initial_seed() == 3
        torch.rand(5)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)


def test_a_picture_in_a_cell_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    cell, reader = Image.open(io.BytesIO(encoded(Image.fromarray(pixels), exif=exif))), plain_image_input()
    key, picture = reader.key(cell), reader.open(cell, Path())
    assert (np.asarray(picture) == np.rot90(pixels, -1)).all()
    picture.paste(RED, (0, 0, 4, 4))
    assert (np.asarray(cell) == pixels).all() and reader.key(cell) == key
    assert (opened(cell) == np.rot90(pixels, -1)).all(), "not turned twice"


def test_a_turned_picture_has_the_background_in_its_corners() -> None:
    reader = plain_image_input(size=32, rotate=45.0, background=[0, 255, 0])
    picture = Image.new("RGB", (32, 32), WHITE)
    corners = [reader.load(picture, Path(), seed=s, train=True)[0][:, 0, 0] for s in range(20)]
    assert any(torch.equal(c, torch.tensor([0.0, 1.0, 0.0])) for c in corners)


def test_each_draw_is_a_knob_that_can_be_turned_off() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)

    def draws(reader: ImageInput) -> list[Tensor]:
        return [reader.load(picture, Path(), seed=seed, train=True)[0] for seed in range(12)]

    still = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert all(torch.allclose(d, still, atol=1e-6) for d in draws(plain_image_input()))
    for knob, value in {"crop_scale": 0.4, "rotate": 30.0, "flip": 0.5, "color_jitter": 0.5}.items():
        assert any(not torch.allclose(d, still, atol=1e-3) for d in draws(plain_image_input(**{knob: value}))), knob
    mirrored = torch.from_numpy(np.asarray(ImageOps.mirror(picture)).copy()).permute(2, 0, 1) / 255
    assert all(torch.allclose(d, mirrored, atol=1e-6) for d in draws(plain_image_input(flip=1.0)))


def test_a_missing_row_is_zeros_in_the_batch() -> None:
    values, mask = image_input().pad([None, torch.ones(3, 8, 8)])
    assert mask is None and values.shape == (2, 3, 8, 8)
    assert not values[0].any() and bool((values[1] == 1).all())


@pytest.mark.parametrize("content", [None, b"", b"no picture", encoded(Image.new("RGB", (9, 9)))[:40]])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(SampleError, match=f"^{len(content)} bytes: cannot be read as a picture"):
            plain_image_input().open(content, tmp_path)
    with pytest.raises(SampleError, match=r"^a\.png: cannot be read as a picture") as caught:
        plain_image_input().open("a.png", tmp_path)
    assert caught.value.file == "a.png"


@pytest.mark.parametrize("cell", [1.5, 3, {"a": 1}])
def test_a_number_or_a_dict_is_no_picture(cell: object, tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=f"^{type(cell).__name__}: cannot be read as a picture"):
        plain_image_input().open(cell, tmp_path)


def test_a_picture_cut_short_is_found_out_when_it_is_decoded(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        full = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), kind)
        (tmp_path / "a").write_bytes(full[: len(full) // 2])
        with pytest.raises(SampleError, match="cannot be read as a picture"):
            plain_image_input().open("a", tmp_path)


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "large.png")
    with pytest.raises(SampleError, match="300 x 300 pixels are more than max_pixels = 80000"):
        plain_image_input(max_pixels=80_000).open("large.png", tmp_path)
    assert plain_image_input(max_pixels=90_000).open("large.png", tmp_path).size == (300, 300)


def test_arrays_and_what_datasets_gives_are_pictures_too(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    reader = plain_image_input()
    for value in (pixels, pixels.tolist(), {"bytes": encoded(Image.fromarray(pixels)), "path": None}):
        assert np.array_equal(np.asarray(reader.open(value, tmp_path)), pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(reader.open({"bytes": None, "path": "a.png"}, tmp_path)), pixels)
    assert reader.key({"bytes": None, "path": "a.png"}) == reader.key("a.png")
    assert reader.key(pixels) != reader.key(pixels[::-1].copy())


def test_of_an_animated_picture_it_is_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert plain_image_input().open("a.gif", tmp_path).getpixel((0, 0))[0] > 200


def test_keys_are_equal_for_equal_content_and_never_zero() -> None:
    assert key_of("a.png") == key_of("a.png") == key_of(b"a.png") != key_of("b.png")
    assert key_of("a.png") == 3133130898480595441
    picture = Image.new("RGB", (3, 3), RED)
    assert key_of(picture) == key_of(picture.copy()) != key_of(Image.new("RGB", (3, 3), WHITE))
    assert all(0 < key_of(str(n)) < 2**63 for n in range(1000))
