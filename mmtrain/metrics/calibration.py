"""Expected calibration error (1706.04599, eq. 3): the gap between a classifier's confidence and its accuracy.

It uses 15 equal-width bins of confidence, as torchmetrics does. Its states are sums, which add over batches and ranks
and do not grow with the split.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

NUM_BINS = 15


class CalibrationError(Metric):
    """Sums per bin. `compute` returns one scalar, 0 if there are no rows."""

    full_state_update = False
    sums: Tensor
    num_rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", default=torch.zeros(2, NUM_BINS, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("num_rows", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probability: Tensor, truth: Tensor) -> None:
        """Add rows.

        Args:
            probability: (N, C), finite, from 0 to 1.
            truth: (N,), int64, class index.
        """
        certainty, predicted = probability.double().max(dim=1)
        bins = (certainty * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        self.sums += torch.zeros_like(self.sums).index_add(
            1, bins, torch.stack([certainty, (predicted == truth).double()])
        )
        self.num_rows += len(truth)

    def compute(self) -> Tensor:
        """Return the mean over rows of |mean confidence - accuracy| of the row's bin."""
        return (self.sums[0] - self.sums[1]).abs().sum() / self.num_rows.clamp(min=1)
