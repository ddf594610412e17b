"""Arrays of .npy and .npz as pictures and sounds, by the rules of arrays in tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtrain.data.decoding.numpy_file import array_of, read_numpy
from mmtrain.data.inputs.audio import AudioInput
from mmtrain.errors import SampleError
from tests.data.parts import plain_image_input

LEVEL = 128 / 255
WAVE = np.sin(np.arange(8000) / 5) * 0.5


def audio_input() -> AudioInput:
    return AudioInput(sample_rate=16000, max_seconds=10.0, noise=0.0, time_mask=0.0, freq_mask=0.0)


@pytest.mark.parametrize(
    "array",
    [
        np.full((9, 9, 3), 128, np.uint8),
        np.full((3, 9, 9), 128, np.uint8),
        np.full((9, 9), 128, np.uint8),
        np.full((9, 9), LEVEL, np.float32),
        np.full((1, 9, 9), LEVEL),
        np.full((9, 9, 3), round(LEVEL * 32767), np.int16),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz", "bytes"])
def test_pictures(tmp_path: Path, array: np.ndarray, ending: str) -> None:
    path = tmp_path / f"a{'.npy' if ending == 'bytes' else ending}"
    (np.savez if ending == ".npz" else np.save)(path, array)
    cell: Any = path.read_bytes() if ending == "bytes" else path.name
    picture, _ = plain_image_input().load(cell, tmp_path, seed=0, train=False)
    assert float((picture - LEVEL).abs().max()) < 0.01


@pytest.mark.parametrize(
    "array",
    [
        WAVE.astype(np.float32),
        (WAVE * 32768).astype(np.int16),
        np.stack([WAVE, WAVE], axis=1),
        np.stack([WAVE, WAVE]),
    ],
)
def test_sounds(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array=array, sampling_rate=8000)
    for name, length in (("a.npy", 8000), ("a.npz", 16000)):
        result = audio_input().load(name, tmp_path, seed=0, train=False)
        assert result is not None and len(result[0]) == length
        assert float(result[0].square().mean().sqrt()) == pytest.approx(0.354, abs=0.01)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((4, 4)), "b": np.zeros(3)}, "it has the arrays a, b; save one in each file"),
        ({"a": np.array([{}], dtype=object)}, "pickled objects, which are never read"),
        ({"a": np.zeros((4, 4, 4, 4))}, "is no picture"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]  # of allow_pickle
    with pytest.raises(SampleError, match=message):
        plain_image_input().load("a.npz", tmp_path, seed=0, train=False)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", WAVE)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-100])
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 and nothing else")
    for name in ("cut.npy", "cut.npz", "gone.npy"):
        with pytest.raises(SampleError):
            audio_input().load(name, tmp_path, seed=0, train=False)
        with pytest.raises(SampleError):
            plain_image_input().load(name, tmp_path, seed=0, train=False)


def test_an_array_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(100))
    with pytest.raises(ValueError, match="more than max_elements = 99"):
        array_of(tmp_path / "a.npy", max_elements=99)
    with (tmp_path / "a.npy").open("rb") as file:
        assert read_numpy(file, array=None, max_elements=100).shape == (100,)
