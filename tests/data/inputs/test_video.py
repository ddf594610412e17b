"""Film columns: which frames are taken, that all of them are changed alike, and what a short film gives."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtrain.data.inputs.image import key_of
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.protocols import InputKind
from mmtrain.errors import ConfigError, SampleError
from tests.data.films import number_of, numbered, tone, wav, write_film
from tests.data.parts import plain_image_input


def video_input(**changed: Any) -> VideoInput:
    """Square pixels in 0..1 as they are, without a random draw but for the frames."""
    plain: dict[str, Any] = {
        "num_frames": 4,
        "sampling": "uniform",
        "size": 48,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "crop_scale": 1.0,
        "rotate": 0.0,
        "flip": 0.0,
        "color_jitter": 0.0,
        "background": [255, 255, 255],
        "max_pixels": 10**6,
        "max_video_pixels": 10**7,
    }
    return VideoInput(**plain | changed)


def loaded(reader: VideoInput, value: Any, folder: Path = Path(), *, seed: int = 0, train: bool = False) -> Tensor:
    result = reader.load(value, folder, seed=seed, train=train)
    assert result is not None and type(result[0]) is Tensor and result[0].dtype == torch.float32
    assert result[0].shape[1:] == (3, reader.size, reader.size) and result[0].isfinite().all()
    return result[0]


def numbers(film: Tensor) -> list[int]:
    return [number_of((frame * 255).numpy()) for frame in film]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "a.mp4", 100, size=(48, 48))


def test_it_is_a_kind_of_input() -> None:
    reader: InputKind = video_input()
    assert reader.kind == "video"


def test_evaluation_takes_the_centres_of_equal_parts(film: Path) -> None:
    for sampling in ("uniform", "random", "segments"):
        assert numbers(loaded(video_input(sampling=sampling), film.name, film.parent)) == [12, 37, 62, 87]
    assert numbers(loaded(video_input(num_frames=1), film.name, film.parent)) == [50]
    assert numbers(loaded(video_input(num_frames=3), film.name, film.parent, train=True)) == [16, 50, 83]


def test_random_takes_any_frames_in_order(film: Path) -> None:
    drawn = [numbers(loaded(video_input(sampling="random"), str(film), seed=s, train=True)) for s in range(25)]
    assert all(len(set(d)) == 4 and d == sorted(d) for d in drawn)
    assert len({n for d in drawn for n in d}) > 50
    assert any(a // 25 == b // 25 for d in drawn for a, b in itertools.pairwise(d))


def test_segments_takes_one_of_each_part(film: Path) -> None:
    drawn = [numbers(loaded(video_input(sampling="segments"), str(film), seed=s, train=True)) for s in range(25)]
    assert all([n // 25 for n in d] == [0, 1, 2, 3] for d in drawn)
    assert len({n for d in drawn for n in d}) > 50


@pytest.mark.parametrize("sampling", ["uniform", "random", "segments"])
def test_a_short_film_gives_each_frame_once(tmp_path: Path, sampling: str) -> None:
    for name, count in (("a.mp4", 5), ("b.mkv", 5), ("c.mp4", 8), ("d.mp4", 1)):
        write_film(tmp_path / name, count, size=(48, 48))
        for seed in range(3):
            result = loaded(video_input(num_frames=8, sampling=sampling), name, tmp_path, seed=seed, train=True)
            assert numbers(result) == list(range(count))


def test_a_frame_that_shows_for_long_is_taken_once(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", 4, times=[0, 40, 80, 4000], size=(48, 48))
    result = numbers(loaded(video_input(num_frames=4), str(path)))
    assert result == sorted(set(result)) and 2 in result


def test_paths_bytes_and_dicts_are_the_same_film(film: Path) -> None:
    data = film.read_bytes()
    values = ["a.mp4", str(film), data, {"path": "a.mp4", "bytes": None}, {"path": "no.mp4", "bytes": data}]
    results = [loaded(video_input(), value, film.parent) for value in values]
    assert all(torch.equal(results[0], other) for other in results[1:])
    keys = [video_input().key(value) for value in values]
    assert keys[0] == keys[3] == key_of("a.mp4") and keys[2] == keys[4] == key_of(data)


def test_frames_that_come_as_files_are_a_film(tmp_path: Path) -> None:
    names = [f"{n:03}.png" for n in range(20)]
    for number, name in enumerate(names):
        Image.fromarray(numbered(number, 48, 48)).save(tmp_path / name)
    assert numbers(loaded(video_input(), names, tmp_path)) == [2, 7, 12, 17]
    assert numbers(loaded(video_input(num_frames=30), names, tmp_path)) == list(range(20))
    Image.fromarray(numbered(7, 96, 96)).save(tmp_path / names[7])
    assert numbers(loaded(video_input(), names, tmp_path)) == [2, 7, 12, 17]
    (tmp_path / names[12]).write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"012\.png: cannot be read as a picture"):
        loaded(video_input(), names, tmp_path)


@pytest.mark.parametrize("knob", [{"crop_scale": 0.3}, {"rotate": 40.0}, {"flip": 0.5}, {"color_jitter": 0.5}])
def test_all_frames_are_changed_alike_by_the_seed_alone(knob: dict[str, float], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reader, still = video_input(**knob), ["a.png"] * 4
    plain = loaded(reader, still, tmp_path)
    assert np.allclose(plain[0].permute(1, 2, 0) * 255, pixels, atol=1e-3)
    state = torch.get_rng_state()
    drawn = [loaded(reader, still, tmp_path, seed=s, train=True) for s in range(8)]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(frame, d[0]) for d in drawn for frame in d)
    assert any(not torch.allclose(d, plain, atol=1e-3) for d in drawn)
    torch.manual_seed(77)
    assert all(torch.equal(d, loaded(reader, still, tmp_path, seed=s, train=True)) for s, d in enumerate(drawn))


def test_a_frame_is_seen_as_the_picture_that_it_is(tmp_path: Path) -> None:
    """Against ImageInput, which resizes by Pillow and not by torch."""
    Image.fromarray(numbered(90, 60, 100)).save(tmp_path / "a.png")
    knobs: dict[str, Any] = {"size": 32, "mean": [0.2, 0.5, 0.7], "std": [0.3, 0.5, 0.9]}
    expected, _ = plain_image_input(**knobs).load("a.png", tmp_path, seed=0, train=False)
    result = loaded(video_input(**knobs), ["a.png"], tmp_path)
    assert torch.allclose(result[0], expected, atol=0.02)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("crop_scale", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (2, 2)])
def test_every_shape_comes_out_square(tmp_path: Path, shape: tuple[int, int], crop_scale: float, train: bool) -> None:
    file = io.BytesIO()
    Image.fromarray(numbered(3, *shape)).save(file, "PNG")
    assert len(loaded(video_input(size=20, crop_scale=crop_scale), file.getvalue(), seed=1, train=train)) == 1


def test_a_person_sees_the_frames_whole(film: Path, tmp_path: Path) -> None:
    seen = video_input(size=8, mean=[0.5] * 3).frames(film.name, film.parent)
    assert [f.size for f in seen] == [(48, 48)] * 4 and all(f.mode == "RGB" for f in seen)
    assert [number_of(np.asarray(f).transpose(2, 0, 1)) for f in seen] == [12, 37, 62, 87]


def test_a_page_shows_four_frames_in_order_of_time(film: Path) -> None:
    sheet = video_input(num_frames=7).open(film.name, film.parent)
    assert sheet is not None and sheet.size == (96, 96)
    corners = [(x, y, x + 48, y + 48) for y in (0, 48) for x in (0, 48)]
    results = [number_of(np.asarray(sheet.crop(corner)).transpose(2, 0, 1)) for corner in corners]
    frames = video_input(num_frames=7).frames(film.name, film.parent)
    known = [number_of(np.asarray(f).transpose(2, 0, 1)) for f in frames]
    assert results == [known[0], known[2], known[4], known[6]]


def test_sound_alone_is_no_film() -> None:
    data = wav(tone(0.5, 8000), rate=8000)
    assert video_input().load(data, Path(), seed=0, train=True) is None
    assert video_input().frames(data, Path()) == []
    assert video_input().open(data, Path()) is None


def test_a_batch_has_one_shape_and_the_mask_says_what_is_there() -> None:
    values, mask = video_input(size=2).pad([torch.ones(2, 3, 2, 2), None, torch.ones(4, 3, 2, 2)])
    assert values.shape == (3, 4, 3, 2, 2) and mask is not None and mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False, False], [False] * 4, [True] * 4]
    assert torch.equal(values, mask.float().view(3, 4, 1, 1, 1).expand_as(values))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"text\n" * 99, "neither sound nor film"), (None, "no such file")]
)
def test_what_cannot_be_read_is_named_as_in_the_table(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SampleError, match=reason) as raised:
        loaded(video_input(), "a.mp4", tmp_path)
    assert raised.value.file == "a.mp4"


def test_large_frames_are_not_decoded(film: Path) -> None:
    with pytest.raises(SampleError, match=r"a\.mp4: 48 x 48 pixels are more than max_pixels = 2303"):
        loaded(video_input(max_pixels=2303), film.name, film.parent)


def test_an_empty_list_is_named() -> None:
    with pytest.raises(SampleError, match="a list of pictures: is empty"):
        loaded(video_input(), [])


def test_wrong_knobs_are_named() -> None:
    with pytest.raises(ConfigError, match="num_frames = 0 leaves nothing of a film; set it to 8, say"):
        video_input(num_frames=0)
    with pytest.raises(ConfigError, match="sampling = middle; set it to uniform, random or segments"):
        video_input(sampling="middle")


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(2, 4000), (4000, 2)])
def test_a_film_of_lines_is_not_resized(shape: tuple[int, int], train: bool, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", 4, size=shape, codec="rawvideo")
    reader = video_input(size=64)
    with pytest.raises(
        SampleError, match=r"a\.mkv: \d+ x \d+ pixels: resized to size = 64, it would have 8,192,000 pixels"
    ):
        reader.load("a.mkv", tmp_path, seed=0, train=train)
    assert loaded(video_input(size=64, max_pixels=10**7), path.name, tmp_path, train=train).shape[0] == 4
    line = Image.new("RGB", shape)
    with pytest.raises(SampleError, match="resized to size = 64"):
        reader.load([line, line], tmp_path, seed=0, train=train)


def test_all_frames_together_have_a_limit(film: Path) -> None:
    frames = 4 * 48 * 48
    assert len(loaded(video_input(max_video_pixels=frames), film.name, film.parent)) == 4
    with pytest.raises(SampleError, match=r"4 frames of 48 x 48 pixels are more than max_video_pixels = 9215"):
        loaded(video_input(max_video_pixels=frames - 1), film.name, film.parent)
    pictures = [Image.new("RGB", (48, 48))] * 4
    assert len(loaded(video_input(max_video_pixels=frames), pictures)) == 4
    with pytest.raises(SampleError, match=r"4 pictures of 48 x 48 pixels are more than max_video_pixels = 9215"):
        loaded(video_input(max_video_pixels=frames - 1), pictures)
