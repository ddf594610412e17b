"""Frames of a film: those at the requested times, in any container, and without decoding the rest."""

import io
import struct
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtrain.data.decoding.frames import Frames, _Walk, read_frames
from mmtrain.data.decoding.media import probe
from mmtrain.errors import SampleError
from tests.data.films import number_of, numbered, tone, wav, write_film


def read(source: Path | bytes, times: list[float], **changed: Any) -> Frames:
    knobs: dict[str, Any] = {"max_pixels": 10**6, "max_video_pixels": 10**8, "background": [255, 255, 255]} | changed
    result = read_frames(source, lambda _: times, **knobs)
    assert result is not None and len(result.pixels) == len(result.seconds) == len(times)
    return result


def numbers(pixels: Tensor) -> list[int]:
    return [number_of(frame) for frame in pixels]


def whole(path: Path) -> np.ndarray:
    """(F, 3, H, W) of the film decoded from front to back."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24").transpose(2, 0, 1) for f in container.decode(video=0)])


FILMS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "fragments.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "live.mkv": {"options": {"live": "1"}},
    "a.mkv": {},
    "a.ts": {},  # it begins at 1.4 s
    "a.flv": {},
    "a.avi": {"codec": "mpeg4"},
    "a.h264": {"kind": "h264"},
    "sparse.mp4": {"key_every": 100},
    "dense.mp4": {"key_every": 1},
}


@pytest.mark.parametrize("name", FILMS)
def test_the_frames_are_those_of_the_whole_film(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, 100, **FILMS[name])
    decoded = whole(path)
    assert len(decoded) == 100
    for wanted in ([0], [99], [50], [24, 25, 26], [3, 4, 70, 71, 72, 99], list(range(100)), list(range(5, 100, 9))):
        result = read(path, [(n + 0.5) / 25 for n in wanted])
        assert numbers(result.pixels) == wanted
        assert (result.pixels.numpy() == decoded[wanted]).all()
        assert np.allclose(result.seconds, np.array(wanted) / 25, atol=1.1e-3)
    assert numbers(read(path.read_bytes(), [0.02, 2.0]).pixels) == [0, 50]


def test_times_come_in_any_order_and_twice_and_beyond_the_ends(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", 50)
    assert numbers(read(path, [1.5, 0.1, 1.5, 99.0, -1.0, 0.04, 1 / 25 * 33]).pixels) == [37, 2, 37, 49, 0, 1, 33]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_variable_rate_gives_the_frame_that_shows(tmp_path: Path, name: str) -> None:
    starts = [0, 40, 80, 500, 510, 1500, 1533, 1567, 1600, 3000]
    path = write_film(tmp_path / name, 10, key_every=4, times=starts)
    times = [0.0, 0.079, 0.3, 0.505, 1.2, 1.55, 1.58, 2.9, 3.0]
    result = read(path, times)
    assert numbers(result.pixels) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert np.allclose(result.seconds, [starts[n] / 1000 for n in [0, 1, 2, 3, 4, 6, 7, 8, 9]], atol=1e-3)


def test_an_animation_is_drawn_up_to_each_frame() -> None:
    frames = [Image.new("RGB", (16, 8), (0, 0, 0)) for _ in range(6)]
    for number, frame in enumerate(frames):  # each adds one block, so that a frame alone is not the picture
        for before in range(number + 1):
            frame.paste((255, 255, 255), (2 * before, 0, 2 * before + 2, 8))
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[100, 100, 500, 100, 100, 100])
    result = read(file.getvalue(), [0.05, 0.65, 0.75, 0.95])
    assert [int((p[0, 4] > 128).sum()) // 2 for p in result.pixels] == [1, 3, 4, 6]


def test_a_picture_is_a_film_of_one_frame() -> None:
    for kind in ("PNG", "GIF"):
        file = io.BytesIO()
        Image.fromarray(numbered(77)).save(file, kind)
        result = read(file.getvalue(), [0.0, 0.02, 5.0])
        assert numbers(result.pixels) == [77, 77, 77] and not result.seconds.any()


def test_transparent_pixels_show_the_background() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "PNG")
    assert (read(file.getvalue(), [0.0], background=[1, 2, 3]).pixels[0, :, 4, 4].numpy() == (1, 2, 3)).all()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_film_is_turned_as_the_phone_was_held(tmp_path: Path, rotation: int) -> None:
    path = write_film(tmp_path / "a.mp4", 30, rotation=rotation)
    data = bytearray(path.read_bytes())  # not encoded again: under load x264 does not always give the same bytes
    at = data.index(b"tkhd") + 4 + 40
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert data[at : at + 36] != identity
    data[at : at + 36] = identity
    stored, turned = read(bytes(data), [0.5]).pixels[0], read(path, [0.5]).pixels[0]
    assert (turned.numpy() == np.rot90(stored, rotation // 90, axes=(1, 2))).all()


def test_a_mirrored_film_is_mirrored_back(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track's header: 16.16, a first
    assert data[at : at + 4] == b"\0\1\0\0"
    data[at : at + 4] = b"\xff\xff\0\0"
    result = read(bytes(data), [0.5]).pixels[0]
    assert (result.numpy() == read(path, [0.5]).pixels[0].flip(2).numpy()).all()


def test_a_picture_with_exif_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(numbered(5)).save(file, "JPEG", exif=exif, quality=95)
    upright = np.rot90(numbered(5), -1).transpose(2, 0, 1)
    assert np.abs(read(file.getvalue(), [0.0]).pixels[0].numpy().astype(int) - upright).max() < 20


def test_sound_has_no_frames(tmp_path: Path) -> None:
    data = wav(tone(0.5, 8000), rate=8000)
    assert read_frames(data, lambda _: [0.0], max_pixels=100, max_video_pixels=100, background=[0, 0, 0]) is None


def test_too_large_frames_are_not_decoded(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", 5)
    with pytest.raises(SampleError, match=r"a\.mp4: 64 x 48 pixels are more than max_pixels = 3071"):
        read(path, [0.0], max_pixels=3071)


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 0.9), ("a.mkv", 0.6)])
def test_a_film_that_is_cut_is_found_out_where_frames_are_missing(tmp_path: Path, name: str, share: float) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}  # the index first, or else nothing can be read
    data = write_film(tmp_path / name, 100, options=options).read_bytes()
    cut = data[: int(len(data) * share)]
    assert numbers(read(cut, [0.02, 0.5]).pixels) == [0, 12]
    with pytest.raises(SampleError, match=f"{len(cut)} bytes: is (cut short: .* of 4.00 s|damaged, cut short)"):
        read(cut, [0.02, 3.9])


def test_only_what_lies_between_a_key_frame_and_a_time_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "a.mp4", 200)
    decoded: list[int] = []
    plain = _Walk._next

    def counted(walk: _Walk) -> Any:
        decoded.append(1)
        return plain(walk)

    monkeypatch.setattr(_Walk, "_next", counted)
    read(path, [5 + 2.5 / 25])
    assert len(decoded) <= 5
    decoded.clear()
    read(path, [5 + n / 25 + 0.02 for n in range(20)])  # one segment, one pass
    assert len(decoded) <= 22


@pytest.mark.slow
def test_sixteen_frames_of_a_minute_are_three_times_faster_than_the_whole(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", 1500, size=(240, 320))
    film = probe(path)
    times = [(part + 0.5) * film.seconds / 16 for part in range(16)]

    def seconds(work: Any) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    assert 3 * min(seconds(lambda: read(path, times)) for _ in range(3)) < seconds(lambda: whole(path))


def test_transparency_is_taken_away_in_bands_with_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    full, _ = read(file.getvalue(), [0.0], background=[9, 100, 200])
    monkeypatch.setattr("mmtrain.data.decoding.frames._PIXELS_AT_ONCE", 60)
    bands, _ = read(file.getvalue(), [0.0], background=[9, 100, 200])
    alpha = pixels[..., 3:] / 255
    expected = (pixels[..., :3] * alpha + np.array([9, 100, 200]) * (1 - alpha)).round()
    assert torch.equal(full, bands) and np.abs(full[0].permute(1, 2, 0).numpy() - expected).max() <= 1
