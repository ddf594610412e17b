"""The sheet of a search: a tile for each item, words where its picture cannot be read."""

from pathlib import Path

import pytest
from PIL import Image

from mmtrain.report.found import TILE, Asked, Result, found_sheet
from tests.data.test_image_file import EPS


@pytest.mark.parametrize("content", [b"", b"no picture", EPS, None])
def test_a_picture_that_cannot_be_read_is_a_tile_of_words(content: bytes | None, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (250, 0, 0)).save(tmp_path / "good.png")
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    results = [Result(tmp_path / name, "a cat", 0.5) for name in ("good.png", "bad.png")]
    sheet = found_sheet([Asked("cat", None, results)], title="t")
    good, bad = (
        sum(pixel == (250, 0, 0) for pixel in sheet.crop((left, 0, left + TILE, sheet.height)).get_flattened_data())
        for left in (16 + (TILE + 10), 16 + 2 * (TILE + 10))
    )
    assert good > 1000 and bad == 0
