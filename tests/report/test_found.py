"""The sheet of a search: a tile for each item, words where its picture cannot be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmtrain.modes.search.finding import _picture
from mmtrain.report.found import TILE, QueryRow, Result, results_sheet
from tests.data.decoding.test_image_file import EPS
from tests.data.films import number_of, write_film
from tests.data.inputs.test_video import video_input


@pytest.mark.parametrize("content", [b"", b"no picture", EPS, None])
def test_a_picture_that_cannot_be_read_is_a_tile_of_words(content: bytes | None, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (250, 0, 0)).save(tmp_path / "good.png")
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    results = [Result(tmp_path / name, "a cat", 0.5) for name in ("good.png", "bad.png")]
    sheet = results_sheet([QueryRow("cat", None, results)], title="t")
    good, bad = (
        sum(pixel == (250, 0, 0) for pixel in sheet.crop((left, 0, left + TILE, sheet.height)).get_flattened_data())
        for left in (16 + (TILE + 10), 16 + 2 * (TILE + 10))
    )
    assert good > 1000 and bad == 0


def test_a_film_is_shown_by_its_middle_frame(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", 8)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    finder: Any = SimpleNamespace(towers=SimpleNamespace(kinds={"video": "video"}, readers={"video": video_input()}))
    frame = _picture(finder, "video", tmp_path / "a.mp4")
    assert isinstance(frame, Image.Image) and number_of(np.asarray(frame).transpose(2, 0, 1)) in (3, 4, 5)
    assert _picture(finder, "video", tmp_path / "bad.mp4") is None and _picture(finder, "video", None) is None
    sheet = results_sheet([QueryRow(None, frame, [Result(frame, "a film", 0.5)])], title="t")
    assert sheet.width > 2 * TILE
