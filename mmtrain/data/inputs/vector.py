"""Rows of tabular numbers, each component scaled on the training split, with gaps for missing values."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmtrain.data.inputs.image import key_of
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import (
    CountedReads,
    Statistics,
    in_short,
    numbers_of,
    restore_scale,
    save_scale,
    scaled,
    statistics_of,
    with_clear_commas,
)
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Padded

_CHUNK = 4096  # rows whose numbers are in memory at once while learning


class VectorInput:
    """A column of D numbers per row: a list, an array, one number, or text such as "1.5, 2" or "[1.5, 2]".

    A null or NaN component becomes 0 after scaling: the mean of training with `standard`, its minimum with `minmax`. A
    component that is constant in the training split is 0 in every split (unless scale is none), because its weights
    have learned nothing. A row of only gaps is a missing modality.

    Args:
        scale: standard (mean 0 and standard deviation 1 on the training split), minmax (0 to 1 there; other splits
            may go beyond) or none.

    Attributes:
        dim: D, the most frequent length in training; 0 before `fit` or `restore`.
    """

    kind = "vector"

    def __init__(self, *, scale: Literal["standard", "minmax", "none"]) -> None:
        if scale not in ("standard", "minmax", "none"):
            raise ValueError(f"scale = {scale}; set it to standard, minmax or none")
        self.scale = scale
        self.fingerprint = f"vector scale={scale}"
        self.dim = 0
        self._offset = np.zeros(0)
        self._divisor = np.zeros(0)

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn the length and the scale from the cells of the training split.

        Raises:
            ConfigError: if no cell can be read, or all commas could be decimal commas.
        """
        faults: list[SampleError] = []
        filled = (cell for cell in with_clear_commas(cells) if cell is not None)
        read = CountedReads(numbers_of)
        rows = (n for n in read_each(filled, read, faults) if n is not None and not np.isnan(n).all())
        statistics = statistics_of(rows, chunk=_CHUNK)
        if statistics is None:
            example = f"such as {faults[0]}" if faults else "every cell is empty"
            raise ConfigError(
                f"no row of the training split can be read as numbers: {example}\n"
                "    name a column that holds numbers, or take this input out"
            )
        read.check(faults[0] if faults else None)
        self._set(*self._scale_of(statistics))

    def _scale_of(self, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
        if self.scale == "none":
            return np.zeros_like(statistics.mean), np.ones_like(statistics.mean)
        if self.scale == "standard":
            return statistics.center, statistics.std
        still = statistics.constant
        low = np.where(still, 0.0, statistics.low)
        return low, np.where(still, 0.0, statistics.high) - low

    def _set(self, offset: np.ndarray, divisor: np.ndarray) -> None:
        self._offset, self._divisor, self.dim = offset, divisor, len(offset)

    def save(self, folder: Path, name: str) -> None:
        """Write the scale into a run folder."""
        save_scale(folder, name, self._offset, self._divisor)

    def restore(self, folder: Path, name: str) -> None:
        """Read the scale of a run folder."""
        self._set(*restore_scale(folder, name))

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """The scaled numbers (D,), float32, and the key of the unscaled ones; None if all are gaps.

        Raises:
            SampleError: for a word instead of a number, and for another number of numbers than in training.
        """
        numbers = numbers_of(value)
        if np.isnan(numbers).all():
            return None
        if len(numbers) != self.dim:
            raise SampleError(in_short(value), f"{len(numbers)} numbers where training has {self.dim}")
        ready = scaled(numbers, self._offset, self._divisor)
        if np.isinf(ready).any():
            raise SampleError(in_short(value), "a number that is too far from those of training")
        return torch.from_numpy(np.where(np.isnan(ready), np.float32(0), ready)), _key(numbers)

    def key(self, value: Any) -> int:
        """The key of a cell's numbers in any notation; of the cell itself if they cannot be read."""
        try:
            return _key(numbers_of(value))
        except SampleError:
            return key_of(value)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """(B, D), with zeros for missing rows; no mask."""
        blank = torch.zeros(self.dim)
        return Padded(torch.stack([blank if v is None else v for v in values]), None)


def _key(numbers: np.ndarray) -> int:
    """Equal for 0 and -0, and for NaN with any bits."""
    return key_of(np.where(np.isnan(numbers), np.nan, numbers + 0.0).tobytes())
