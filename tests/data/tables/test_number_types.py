"""Numbers of lists in the type that their Arrow column has, on their way to the reader."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from mmtrain.data.dataset import EvalSplit
from mmtrain.data.tables.number_types import number_type, typed_cell
from tests.data.inputs.test_audio import audio_input
from tests.data.parts import plain_image_input


def table(cells: list[Any], kind: Any) -> datasets.Dataset:
    return datasets.Dataset(pa.table({"x": pa.array(cells, kind)}))


@pytest.mark.parametrize(
    ("cell", "kind", "dtype"),
    [
        ([1, 2], pa.list_(pa.int16()), np.int16),
        ([[1], [2]], pa.large_list(pa.list_(pa.uint8())), np.uint8),
        ([0.5], pa.list_(pa.float32()), np.float32),
        ([1, 2], pa.list_(pa.int32(), 2), np.int32),
        (
            {"array": [1], "sampling_rate": 8000},
            pa.struct({"array": pa.list_(pa.int16()), "sampling_rate": pa.int64()}),
            np.int16,
        ),
        ([1, 2], pa.list_(pa.int64()), None),
        ([0.5], pa.list_(pa.float64()), None),
        (3, pa.int16(), None),
        ("a.png", pa.string(), None),
        (["a.png"], pa.list_(pa.string()), None),
        ({"bytes": b"", "path": ""}, pa.struct({"bytes": pa.binary(), "path": pa.string()}), None),
    ],
)
def test_a_column_has_the_type_of_its_numbers(cell: Any, kind: Any, dtype: Any) -> None:
    rows = table([cell, None], kind)
    result = number_type(rows, "x")
    assert result == (None if dtype is None else np.dtype(dtype))
    typed = typed_cell(rows[0]["x"], result)
    inner = typed["array"] if isinstance(cell, dict) and dtype else typed
    assert inner.dtype == dtype if dtype else typed == rows[0]["x"]
    assert typed_cell(rows[1]["x"], result) is None
    assert number_type(rows, "y") is None and number_type([], "x") is None


def test_lists_that_are_no_array_are_left_to_their_reader() -> None:
    assert typed_cell([[1], [1, 2]], np.dtype(np.int16)) == [[1], [1, 2]]
    assert typed_cell([1, None], np.dtype(np.int16)) == [1, None]


def test_pictures_and_sounds_are_read_in_the_type_of_their_column() -> None:
    grey = (np.arange(64).reshape(8, 8) * 4).astype(np.uint16)
    wave = (8000 * np.sin(np.arange(4800) / 8)).astype(np.int32)
    image = pa.array([(grey * 257).tolist()], pa.list_(pa.list_(pa.uint16())))
    audio = pa.array(
        [{"array": (wave << 16).tolist(), "sampling_rate": 16000}],
        pa.struct({"array": pa.list_(pa.int32()), "sampling_rate": pa.int64()}),
    )
    rows = datasets.Dataset(pa.table({"image": image, "audio": audio}))
    inputs: dict[str, Any] = {"image": plain_image_input(), "audio": audio_input()}
    split = EvalSplit(
        rows, folder=Path(), columns={"image": "image", "audio": "audio"}, inputs=inputs, targets={}, seed=0
    )
    sample = split[(0, 0)]
    assert np.abs(sample.inputs["image"][0].numpy() * 255 - grey).max() < 1e-3
    assert np.abs(sample.inputs["audio"].numpy() - wave / 32768).max() < 1e-6
    assert np.asarray(split.picture(0)).max() == 252
