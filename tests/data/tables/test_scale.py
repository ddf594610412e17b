"""Numbers of cells however they are written, and one-pass statistics against numpy."""

from typing import Any

import numpy as np
import pytest

from mmtrain.data.tables.scale import Statistics, numbers_of, statistics_of
from mmtrain.errors import SampleError

NAN = float("nan")


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        (3, [3.0]),
        (True, [1.0]),
        (2.5, [2.5]),
        ("2.5", [2.5]),
        ("1.5, 2", [1.5, 2.0]),
        ("[1.5, 2]", [1.5, 2.0]),
        (" [1.5 2.  -3e2] ", [1.5, 2.0, -300.0]),
        ([1, 2.5], [1.0, 2.5]),
        ((1, None), [1.0, NAN]),
        ([None, "2", "", "1.5"], [NAN, 2.0, NAN, 1.5]),
        ("1,,NA, null", [1.0, NAN, NAN, NAN]),
        ("n/a", [NAN]),
        (NAN, [NAN]),
        (np.array([1, 2], dtype=np.int16), [1.0, 2.0]),
        ([], []),
        ("[]", []),
    ],
)
def test_numbers_are_read_however_they_are_written(cell: Any, numbers: list[float]) -> None:
    result = numbers_of(cell)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, numbers)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1.5, red", "1.5, red: 'red' is not a number"),
        ([1.0, "red"], r"\[1.0, 'red'\]: 'red' is not a number"),
        ([1.0, [2.0]], r"'\[2.0\]' is not a number"),
        ([[1.0, 2.0], [3.0, 4.0]], r"an array of shape \(2, 2\), not a list of numbers"),
        ([1.0, float("inf")], "a number that is infinite or too large for 32 bits"),
        (1e39, "a number that is infinite or too large for 32 bits"),
        ("-inf", "a number that is infinite or too large for 32 bits"),
        ({"a": 1}, "is not a number"),
        ([10**400], "is not a number"),
        ("word " * 40, r"word word .{40,47}\.\.\.: 'word' is not a number"),
    ],
)
def test_what_is_no_number_is_said(cell: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        numbers_of(cell)


def test_one_pass_gives_the_statistics_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal([0, 1e6, -3, 5], [1, 1e-2, 30, 2], (1000, 4))
    rows[rng.random(rows.shape) < 0.2] = NAN
    rows[:, 3] = 0.1
    statistics = Statistics(4)
    for part in np.split(rows, [1, 2, 300, 301]):
        statistics.add(part)
    np.testing.assert_allclose(statistics.center, np.nanmean(rows, 0), rtol=1e-12)
    np.testing.assert_allclose(
        statistics.std, np.nanstd(rows, 0), rtol=1e-7, atol=1e-14
    )  # numpy's is not quite 0 for a constant
    np.testing.assert_array_equal(statistics.low, np.nanmin(rows, 0))
    np.testing.assert_array_equal(statistics.high, np.nanmax(rows, 0))
    assert statistics.constant.tolist() == [False, False, False, True]
    assert statistics.center[3] == 0.1 and statistics.std[3] == 0.0
    assert statistics.num_rows == 1000


def test_a_component_without_a_number_has_no_effect() -> None:
    statistics = Statistics(2)
    statistics.add(np.array([[NAN, 1.0]]))
    statistics.add(np.array([[NAN, 3.0]]))
    assert statistics.center.tolist() == [0.0, 2.0] and statistics.std.tolist() == [0.0, 1.0]
    statistics.add(np.array([[7.0, NAN]]))
    assert statistics.center.tolist() == [7.0, 2.0]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_the_most_frequent_length_counts(chunk: int) -> None:
    rows = [np.array(r, dtype=np.float64) for r in ([9.0], [1.0, 2.0], [3.0, 6.0], [9.0, 9.0, 9.0])]
    statistics = statistics_of(rows, chunk=chunk)
    assert statistics is not None and statistics.center.tolist() == [2.0, 4.0]
    tied = statistics_of([*rows, np.array([5.0])], chunk=chunk)
    assert tied is not None and tied.center.tolist() == [7.0]
    assert statistics_of([], chunk=chunk) is None
