"""Lengths are those of the files, and what the model will not see of them is reported."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.inputs.sequence import SequenceInput
from mmtrain.data.inputs.vector import VectorInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.survey.lengths import Lengths, measure_lengths
from tests.data.films import tone, wav, write_film
from tests.data.parts import fitted_text_input, image_input


def numbered(*cells: Any) -> list[tuple[int, Any]]:
    return list(enumerate(cells))


def test_texts_are_counted_whole_and_the_tokenizer_stays_as_it_is() -> None:
    reader = fitted_text_input(max_length=4)
    [result] = measure_lengths(reader, numbered("a red cat", ["a", "a ☃ dog"]), Path()).lengths
    assert (result.unit, result.low, result.median, result.high, result.num) == ("tokens", "3", "5", "5", 3)
    assert result.note == "2 of 3 are cut to max_length = 4; 14.3% of the tokens are unknown"
    assert len(reader.load("a red cat", Path(), seed=0, train=False)[0]) == 4


def test_pictures_by_their_area_and_what_is_no_picture(tmp_path: Path) -> None:
    for number, size in enumerate(((30, 20), (4, 40), (9, 9))):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no")
    inside = io.BytesIO()
    Image.new("RGB", (8, 8)).save(inside, "PNG")
    cells = [f"{n}.png" for n in range(5)] + [inside.getvalue(), np.zeros((7, 6, 3), np.uint8).tolist()]
    result = measure_lengths(image_input(size=8), numbered(*cells), tmp_path)
    note = "2 of 5 are smaller than size = 8"
    assert result.lengths == [Lengths("pixels", "6 x 7", "9 x 9", "30 x 20", 5, note)]
    assert result.unread == [3, 4]


def test_sounds_in_files_and_in_cells(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(1.5, 8000), rate=8000))
    reader = AudioInput(sample_rate=16000, max_seconds=1.0, noise=0.0, time_mask=0.0, freq_mask=0.0)
    cells = numbered("a.wav", [0.0] * 8000, wav(tone(0.25, 8000), rate=8000), "gone.wav")
    result = measure_lengths(reader, cells, tmp_path)
    assert result.lengths == [Lengths("seconds", "0.25", "0.50", "1.50", 3, "1 of 3 are cut to max_seconds = 1")]
    assert result.unread == [3]


def test_films(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", 25)
    write_film(tmp_path / "b.mp4", 5)
    knobs: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_scale": 1.0, "rotate": 0.0, "flip": 0.0}
    reader = VideoInput(
        **knobs,
        num_frames=8,
        sampling="uniform",
        size=8,
        color_jitter=0.0,
        background=[0, 0, 0],
        max_pixels=10**6,
        max_video_pixels=10**7,
    )
    frames, seconds = measure_lengths(reader, numbered("a.mp4", "b.mp4", ["x.png"] * 9), tmp_path).lengths
    assert frames == Lengths("frames", "5", "9", "25", 3, "1 of 3 have fewer than num_frames = 8")
    assert (seconds.unit, seconds.low, seconds.high, seconds.num) == ("seconds", "0.20", "1.00", 2)


def test_sequences_are_counted_whole_and_vectors_have_no_length(tmp_path: Path) -> None:
    reader = SequenceInput(max_length=4, scale="none", array=None, max_elements=10**6)
    reader.fit([[[0.0]] * 3], tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((9, 1), np.float32))
    result = measure_lengths(reader, numbered("a.npy", [[1.0], [2.0]], [], "gone.npy"), tmp_path)
    assert result.lengths == [Lengths("frames", "2", "6", "9", 2, "1 of 2 are cut to max_length = 4")]
    assert result.unread == [3]
    assert reader.max_length == 4
    assert measure_lengths(VectorInput(scale="none"), numbered([1.0]), tmp_path).lengths == []
