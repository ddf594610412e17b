"""Means of several numbers per row, by name."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class Means(Metric):
    """Means by name; a name without any value has no mean.

    Args:
        names: names of the numbers.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.add_state("sums", default=torch.zeros(len(names), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("counts", default=torch.zeros(len(names), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add numbers (N,) by name.

        Raises:
            FloatingPointError: if a value is not finite, because it must not contribute to a score.
        """
        for name, value in values.items():
            if not value.isfinite().all():
                raise FloatingPointError(f"{name}: a number is not finite")
            at = self.names.index(name)
            self.sums[at] += value.double().sum()
            self.counts[at] += value.numel()

    def compute(self) -> dict[str, Tensor]:
        """Return the means."""
        entries = zip(self.names, self.sums, self.counts, strict=True)
        return {name: total / count for name, total, count in entries if count > 0}
