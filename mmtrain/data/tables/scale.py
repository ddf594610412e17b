"""The numbers of a cell, and the statistics of a training split that they are scaled by: one pass, in float64."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json

_LARGEST = float(np.finfo(np.float32).max)
_GAPS = ("", "nan", "na", "n/a", "null", "none")  # as csv files write them


def numbers_of(cell: Any) -> np.ndarray:
    """The numbers of a cell, (D,) float64, NaN for a gap.

    Args:
        cell: a number, a list or array of numbers, of numbers as text and of nulls, or a string: "1.5, 2", "[1.5 2]".

    Raises:
        SampleError: for a word, a number beyond float32, and a table of numbers.
    """
    parts: Any = cell
    if isinstance(cell, str):
        text = cell.strip().removeprefix("[").removesuffix("]").strip()
        if not text:
            return np.empty(0)
        parts = text.split(",") if "," in text or text.lower() in _GAPS else text.split()
    try:
        numbers = np.asarray(parts, dtype=np.float64)  # makes NaN of None
    except (TypeError, ValueError, OverflowError):
        several = isinstance(parts, list | tuple | np.ndarray)
        numbers = np.array([_number(part, cell) for part in (parts if several else [parts])])
    if numbers.ndim > 1:
        raise SampleError(in_short(cell), f"an array of shape {numbers.shape}, not a list of numbers")
    if (np.abs(numbers) > _LARGEST).any():
        raise SampleError(in_short(cell), "a number that is infinite or too large for 32 bits")
    return np.atleast_1d(numbers)


_ONE_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\d+,\d+|\d{1,3}(?:,\d{3})+(?:\.\d*)?)")  # 3.15, 3,15, 1,297.5


def with_clear_commas(cells: Iterable[Any]) -> Iterator[Any]:
    """The cells as they are.

    Raises:
        ConfigError: at their end, when each text could be one number with a decimal comma or a comma between thousands.
    """
    example, is_clear = "", False
    for row, cell in enumerate(cells, start=1):
        text = cell.strip() if isinstance(cell, str) else ""
        if text and text.lower() not in _GAPS and not is_clear:
            is_clear = _ONE_NUMBER.fullmatch(text) is None
            example = example or (f"{text!r} in row {row} of training" if "," in text else "")
        is_clear |= isinstance(cell, list | tuple | np.ndarray)
        yield cell
    if example and not is_clear:
        raise ConfigError(
            f"{example} can be one number or several\n"
            "    fix: write one number with a point and without other marks (1297.5), several with spaces (3, 15)"
        )


class CountedReads:
    """A function that reads cells, and how many it could read.

    Args:
        read: the function.

    Attributes:
        num_read: cells that hold something and could be read.
        num_bad: cells that could not.
    """

    def __init__(self, read: Callable[[Any], np.ndarray | None]) -> None:
        self._read = read
        self.num_read = 0
        self.num_bad = 0

    def __call__(self, cell: Any) -> np.ndarray | None:
        """What the function makes of a cell."""
        self.num_bad += 1  # until it is read
        numbers = self._read(cell)
        self.num_bad -= 1
        self.num_read += numbers is not None and numbers.size > 0
        return numbers

    def check(self, example: SampleError | None) -> None:
        """Refuse a column if less than half of its cells are numbers.

        Raises:
            ConfigError: with the example.
        """
        if self.num_bad > self.num_read > 0:
            rows = f"{self.num_bad} of {self.num_bad + self.num_read} rows of the training split"
            raise ConfigError(f"{rows} are no numbers: such as {example}\n    name columns of numbers")


def _number(part: Any, cell: Any) -> float:
    if part is None or (isinstance(part, str) and part.strip().lower() in _GAPS):
        return float("nan")
    try:
        return float(part)
    except (TypeError, ValueError, OverflowError) as error:
        raise SampleError(in_short(cell), f"{in_short(part)!r} is not a number") from error


def in_short(cell: Any) -> str:
    """A cell as a message shows it, on one short line."""
    text = " ".join(str(cell).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


class Statistics:
    """Mean, standard deviation, smallest and largest number of each of D components; gaps (NaN) do not count.

    Parts are merged by Chan's formula (10.1080/00031305.1983.10483115, eq. 2.1), which does not cancel as a sum of
    squares does.

    Attributes:
        num_rows: how many were added.
        count: (D,), how many numbers.
        mean: (D,), 0 where there is none.
        low: (D,), infinite where there is none.
        high: (D,), infinite where there is none.
    """

    def __init__(self, dim: int) -> None:
        self.num_rows = 0
        self.count = np.zeros(dim)
        self.mean = np.zeros(dim)
        self.low = np.full(dim, np.inf)
        self.high = np.full(dim, -np.inf)
        self._squares = np.zeros(dim)  # of the distances from the mean

    def add(self, rows: np.ndarray) -> None:
        """Count rows, (N, D)."""
        present = ~np.isnan(rows)
        count = present.sum(0)
        mean = np.where(present, rows, 0.0).sum(0) / np.maximum(count, 1)
        squares = np.where(present, rows - mean, 0.0)
        total = np.maximum(self.count + count, 1)
        shift = np.where(count > 0, mean - self.mean, 0.0)
        self._squares += (squares**2).sum(0) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count += count
        self.num_rows += len(rows)
        self.low = np.fmin(self.low, np.fmin.reduce(rows, axis=0))
        self.high = np.fmax(self.high, np.fmax.reduce(rows, axis=0))

    @property
    def constant(self) -> np.ndarray:
        """(D,), bool: whether a component never changes, or never has a number."""
        return ~(self.low < self.high)

    @property
    def std(self) -> np.ndarray:
        """(D,), of the numbers themselves (divided by their count, not by one less), exactly 0 for a constant."""
        return np.where(self.constant, 0.0, np.sqrt(self._squares / np.maximum(self.count, 1)))

    @property
    def center(self) -> np.ndarray:
        """(D,), the mean, without a rounding error for a constant."""
        return np.where(self.constant & (self.count > 0), self.low, self.mean)


def statistics_of(rows: Iterable[np.ndarray], *, chunk: int) -> Statistics | None:
    """The statistics of those rows (D,) that have the most frequent length, the shortest of several; None of none.

    Args:
        rows: each a list of numbers.
        chunk: number of values in memory at once.
    """
    by_length: dict[int, Statistics] = {}
    waiting: dict[int, list[np.ndarray]] = {}
    for row in rows:
        part = waiting.setdefault(len(row), [])
        part.append(row)
        if len(part) == chunk:
            by_length.setdefault(len(row), Statistics(len(row))).add(np.stack(part))
            part.clear()
    for length, part in waiting.items():
        if part:
            by_length.setdefault(length, Statistics(length)).add(np.stack(part))
    return max(by_length.values(), key=lambda s: (s.num_rows, -len(s.mean)), default=None)


def scaled(numbers: np.ndarray, offset: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """(numbers - offset) / divisor over the last axis in float64, as float32; 0 where the divisor is 0.

    What becomes too large for float32 (a component that hardly changes in training) is infinite.
    """
    shifted = numbers.astype(np.float64) - offset
    with np.errstate(over="ignore"):
        return np.divide(shifted, divisor, out=np.zeros_like(shifted), where=divisor > 0).astype(np.float32)


def save_scale(folder: Path, name: str, offset: np.ndarray, divisor: np.ndarray) -> None:
    """Write a scale; every float64 comes back with the same bits."""
    write_json(folder / f"scale_{name}.json", {"offset": offset.tolist(), "divisor": divisor.tolist()}, indent=1)


def restore_scale(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset and divisor as `save_scale` wrote them."""
    scale = read_json(folder / f"scale_{name}.json", fix=LEARN_AGAIN, keys=("offset", "divisor"))
    return np.array(scale["offset"]), np.array(scale["divisor"])
