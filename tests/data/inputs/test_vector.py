"""Rows of numbers: scaled as scikit-learn scales them, gaps, cells that are no numbers, what is saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor

from mmtrain.data.inputs.vector import VectorInput
from mmtrain.data.protocols import FittedKind, InputKind
from mmtrain.errors import ConfigError, SampleError

HERE = Path()
NAN = float("nan")


def fitted(cells: Any, scale: str = "standard") -> VectorInput:
    reader = VectorInput(scale=scale)
    reader.fit(cells, HERE)
    return reader


def numbers(reader: VectorInput, cell: Any) -> Tensor:
    loaded = reader.load(cell, HERE, seed=0, train=False)
    assert loaded is not None
    return loaded[0]


def table(num_rows: int = 300) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = rng.normal([0, 1000, -3], [1, 0.1, 50], (num_rows, 3))
    rows[rng.random(rows.shape) < 0.2] = NAN
    return rows


def test_it_is_an_input_that_learns() -> None:
    reader: InputKind = VectorInput(scale="none")
    learned: FittedKind = VectorInput(scale="none")
    assert isinstance(reader, FittedKind) and reader.kind == "vector" and "none" in learned.fingerprint


@pytest.mark.parametrize(("scale", "reference"), [("standard", StandardScaler()), ("minmax", MinMaxScaler())])
def test_the_scale_is_that_of_scikit_learn(scale: str, reference: Any) -> None:
    train, test = table(), 3 * table(20)
    reader = fitted([row.tolist() for row in train], scale)
    reference.fit(train)
    for rows in (train, test):
        expected = np.nan_to_num(reference.transform(rows))
        for row, want in zip(rows, expected, strict=True):
            if not np.isnan(row).all():
                result = numbers(reader, row.tolist())
                assert result.dtype == torch.float32 and result.shape == (3,)
                np.testing.assert_allclose(result.numpy(), want, rtol=1e-5, atol=1e-6)


def test_without_a_scale_numbers_stay_and_gaps_are_zero() -> None:
    reader = fitted([[1.0, 5.0], [2.0, 5.0]], "none")
    assert numbers(reader, [7.5, 5.0]).tolist() == [7.5, 5.0]
    assert numbers(reader, [None, 6.0]).tolist() == [0.0, 6.0]


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_what_never_changes_in_training_is_zero_everywhere(scale: str) -> None:
    reader = fitted([[1.0, 0.1, None], [2.0, 0.1, None], [4.0, 0.1, None]], scale)
    assert numbers(reader, [2.0, 0.1, None])[1:].tolist() == [0.0, 0.0]
    assert numbers(reader, [2.0, 1e6, 5.0])[1:].tolist() == [0.0, 0.0]


def test_gaps_are_the_mean_and_a_row_of_gaps_is_not_there() -> None:
    reader = fitted([[1.0, 5.0], None, [3.0, None], "", [None, None], "2, 7"])
    assert reader.dim == 2
    assert numbers(reader, [None, 5.0]).tolist() == [0.0, -1.0]
    assert numbers(reader, "nan, 7").tolist() == [0.0, 1.0]
    for cell in ([None, None], "nan", "[]", [], NAN):
        assert reader.load(cell, HERE, seed=0, train=True) is None


def test_columns_of_a_csv_and_single_numbers_serve() -> None:
    reader = fitted(["1.5", 2.5, 3, "[3.0]"], "none")
    assert reader.dim == 1 and numbers(reader, "4").tolist() == [4.0]
    spread = fitted([["1", None], ["3", "word"], ["2", "5"]])  # mean 1.5 and deviation 0.5 without the word's row
    assert numbers(spread, ["3", ""]).tolist() == [3.0, 0.0]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([1.0, 2.0, 3.0], r"\[1.0, 2.0, 3.0\]: 3 numbers where training has 2"),
        (1.0, "1.0: 1 numbers where training has 2"),
        ("1.5, red", "1.5, red: 'red' is not a number"),
        ([1e300, 0.0], "too large for 32 bits"),
    ],
)
def test_a_wrong_cell_is_said(cell: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        fitted([[1.0, 2.0], [2.0, 3.0]]).load(cell, HERE, seed=0, train=True)


def test_a_number_that_scaling_makes_too_large_is_said() -> None:
    reader = fitted([[1e-30], [2e-30]])
    with pytest.raises(SampleError, match=r"1000000000\.0: a number that is too far from those of training"):
        reader.load(1e9, HERE, seed=0, train=True)


def test_rows_that_cannot_be_read_do_not_spoil_what_is_learned() -> None:
    clean = fitted([[1.0, 2.0], [2.0, 5.0]])
    dirty = fitted([[9.0], "red", [1.0, 2.0], [1.0, float("inf")], [2.0, 5.0]])
    assert dirty.dim == 2 and torch.equal(numbers(dirty, [7.0, 7.0]), numbers(clean, [7.0, 7.0]))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["red", "green"], "no row .* can be read as numbers: such as red: 'red' is not a number\n    name a column"),
        ([None, "", [None]], "every cell is empty"),
        ([], "every cell is empty"),
    ],
)
def test_a_column_without_numbers_is_a_fault_of_the_configuration(cells: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(cells)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale = robust; set it to standard, minmax or none"):
        VectorInput(scale="robust")


@pytest.mark.parametrize("scale", ["standard", "minmax", "none"])
def test_what_was_saved_gives_the_same_bits(tmp_path: Path, scale: str) -> None:
    reader = fitted([*table().tolist(), [1 / 3, 1e-30, 1e20]], scale)
    reader.save(tmp_path, "lab")
    assert [path.name for path in tmp_path.iterdir()] == ["scale_lab.json"]
    again = VectorInput(scale=scale)
    again.restore(tmp_path, "lab")
    assert again.dim == 3
    for row in table(50).tolist():
        if not np.isnan(row).all():
            assert torch.equal(numbers(again, row), numbers(reader, row))


def test_equal_numbers_have_one_key_however_they_are_written() -> None:
    reader = fitted([[1.5, 2.0], [0.0, 1.0]])
    keys = {reader.key(cell) for cell in ("1.5, 0", "[1.5 0]", [1.5, 0], np.array([1.5, -0.0]))}
    loaded = reader.load([1.5, 0.0], HERE, seed=3, train=True)
    assert loaded is not None and keys == {loaded[1]} and 0 not in keys
    assert reader.key([1.5, None]) == reader.key("1.5, nan") not in keys
    assert reader.key("red") == reader.key("red") != 0


def test_a_batch_has_zeros_where_a_row_has_none() -> None:
    reader = fitted([[1.0, 2.0], [3.0, 4.0]])
    values, mask = reader.pad([torch.tensor([1.0, -1.0]), None])
    assert values.tolist() == [[1.0, -1.0], [0.0, 0.0]] and values.dtype == torch.float32 and mask is None
