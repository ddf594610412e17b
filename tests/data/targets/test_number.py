"""Number targets: the scale against scikit-learn and back again, gaps, cells that are no numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from mmtrain.data.protocols import FittedKind, TargetKind
from mmtrain.data.targets.number import Number
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import NumberTarget


def fitted(*cells: Any, scale: str = "standard") -> Number:
    target = Number(scale=scale)
    target.fit(cells, Path())
    return target


def scaled(target: Number, cell: Any) -> np.ndarray:
    result = target.load(cell)
    assert result is not None and result.dtype == torch.float32 and result.ndim == 1
    return result.numpy()


def test_it_is_a_target() -> None:
    target: TargetKind = Number(scale="none")
    assert isinstance(target, FittedKind) and target.fingerprint != Number(scale="standard").fingerprint


def test_the_scale_is_that_of_scikit_learn_and_leads_back() -> None:
    rows = np.random.default_rng(0).normal([0, 1e4], [1e-3, 50], (5000, 2))
    target = fitted(*rows.tolist())
    reference = StandardScaler().fit(rows)
    assert target.known.names == ["0", "1"]
    np.testing.assert_allclose(target.known.mean, reference.mean_, rtol=1e-10)
    np.testing.assert_allclose(target.known.std, reference.scale_, rtol=1e-10)
    for row in rows[:50]:
        result = scaled(target, row.tolist())
        np.testing.assert_allclose(result, reference.transform(row[None])[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result * target.known.std + target.known.mean, row, rtol=1e-5, atol=1e-8)


def test_without_a_scale_numbers_stay() -> None:
    target = fitted(1, 5.5, "7", scale="none")
    assert target.known == NumberTarget(names=["0"], mean=[0.0], std=[1.0])
    assert scaled(target, "2.5").tolist() == [2.5]


def test_what_never_changes_in_training_keeps_its_distance() -> None:
    target = fitted(0.1, 0.1, 0.1)
    assert target.known == NumberTarget(names=["0"], mean=[0.1], std=[1.0])
    assert scaled(target, 0.1).tolist() == [0.0] and scaled(target, 2.1).tolist() == [2.0]


def test_a_row_with_a_gap_is_unlabelled_as_a_whole() -> None:
    gaps: list[Any] = [None, "", " ", float("nan"), [1.0, None], "nan, 2", [], "[]", [None, None]]
    target = fitted([1.0, 2.0], *gaps, [3.0, 6.0])
    assert target.known == NumberTarget(names=["0", "1"], mean=[2.0, 4.0], std=[1.0, 2.0])
    assert [target.load(gap) for gap in gaps] == [None] * len(gaps)
    assert fitted(*gaps).known == NumberTarget(names=[], mean=[], std=[])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("red", "red: 'red' is not a number"),
        ([1.0, 2.0], r"\[1.0, 2.0\]: 2 numbers, but training has 1"),
        (float("inf"), "infinite or too large for 32 bits"),
        (1e38, "1e\\+38: a number that is too far from those of the training split"),
    ],
)
def test_a_wrong_cell_is_said(cell: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        fitted(1.0, 1.1, "red", [5.0, 5.0]).load(cell)


def test_a_column_of_words_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"no row .* such as red: 'red' is not a number\n    fix: name a column of numbers"
    ):
        fitted(None, "red", "green")


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale = minmax; set it to standard or none"):
        Number(scale="minmax")


def test_what_was_saved_gives_the_same_bits(tmp_path: Path) -> None:
    cells = np.random.default_rng(0).normal(1 / 3, 1e-3, (99, 3)).tolist()
    target = fitted(*cells)
    target.save(tmp_path, "price")
    assert [path.name for path in tmp_path.iterdir()] == ["numbers_price.json"]
    again = Number(scale="standard")
    again.restore(tmp_path, "price")
    assert again.known == target.known
    assert all(np.array_equal(scaled(again, cell), scaled(target, cell)) for cell in cells)


def test_a_batch_holds_every_row() -> None:
    values = fitted([1.0, 2.0], [3.0, 6.0]).pad([torch.tensor([1.0, -1.0]), None])
    assert values.tolist() == [[1.0, -1.0], [0.0, 0.0]] and values.dtype == torch.float32
