"""A target of one or several numbers, standardized on the training split so losses of different units can be added."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import CountedReads, in_short, numbers_of, scaled, statistics_of, with_clear_commas
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import NumberTarget

_CHUNK = 4096  # rows whose numbers are in memory at once while learning


class Number:
    """A column of K numbers per row: a number, a list, or text such as "1.5, 2".

    A row with a gap (null, NaN, blank) in any of its K numbers is unlabelled, because there is one mask per row. A
    number that is constant in the training split keeps its distance to that constant, so errors in the units of the
    table stay correct.

    Args:
        scale: standard (mean 0 and standard deviation 1 on the labelled training rows) or none.
    """

    def __init__(self, *, scale: Literal["standard", "none"]) -> None:
        if scale not in ("standard", "none"):
            raise ValueError(f"scale = {scale}; set it to standard or none")
        self.scale = scale
        self.fingerprint = f"number scale={scale}"
        self.known = NumberTarget(names=[], mean=[], std=[])

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn K (the most frequent length) and the scale; nothing if all cells are empty.

        Raises:
            ConfigError: if no cell can be read and not all are empty, or if all commas could be decimal commas.
        """
        faults: list[SampleError] = []
        read = CountedReads(_whole)
        labelled = (n for n in read_each(with_clear_commas(cells), read, faults) if n is not None)
        statistics = statistics_of(labelled, chunk=_CHUNK)
        if statistics is None and faults:
            raise ConfigError(
                f"no row of the training split has a number as its target: such as {faults[0]}\n"
                "    fix: name a column of numbers, or make it a class target"
            )
        if statistics is None:
            self.known = NumberTarget(names=[], mean=[], std=[])
            return
        read.check(faults[0] if faults else None)
        mean, std = statistics.center, np.where(statistics.std > 0, statistics.std, 1.0)
        if self.scale == "none":
            mean, std = np.zeros_like(mean), np.ones_like(std)
        self.known = NumberTarget(names=[str(n) for n in range(len(mean))], mean=mean.tolist(), std=std.tolist())

    def save(self, folder: Path, name: str) -> None:
        """Write the scale into a run folder."""
        write_json(folder / f"numbers_{name}.json", asdict(self.known), indent=1)

    def restore(self, folder: Path, name: str) -> None:
        """Read the scale of a run folder."""
        path = folder / f"numbers_{name}.json"
        self.known = NumberTarget(**read_json(path, fix=LEARN_AGAIN, keys=("names", "mean", "std")))

    def load(self, value: Any) -> Tensor | None:
        """The scaled numbers (K,), float32; None if any is missing.

        Raises:
            SampleError: for a word instead of a number, and for another number of numbers than in training.
        """
        numbers = _whole(value)
        if numbers is None:
            return None
        if len(numbers) != len(self.known.names):
            raise SampleError(in_short(value), f"{len(numbers)} numbers, but training has {len(self.known.names)}")
        ready = scaled(numbers, np.array(self.known.mean), np.array(self.known.std))
        if np.isinf(ready).any():
            raise SampleError(in_short(value), "a number that is too far from those of the training split")
        return torch.from_numpy(ready)

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, K), float32; zeros for unlabelled rows."""
        blank = torch.zeros(len(self.known.names))
        return torch.stack([blank if v is None else v for v in values])


def _whole(cell: Any) -> np.ndarray | None:
    """The numbers of a cell without gaps."""
    if cell is None:
        return None
    numbers = numbers_of(cell)
    return None if not numbers.size or np.isnan(numbers).any() else numbers
