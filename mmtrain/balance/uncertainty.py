"""Uncertainty weighting: each task has a noise of its own, which is learned (1705.07115).

    L = sum_k exp(-s_k) L_k / 2 + s_k / 2,   s_k = log sigma_k^2

The network sees the losses times exp(-s_k) / 2, and s_k sees the whole with the losses as they are: those are the two
parts of the gradient of L. The best s_k for a loss is its logarithm, so that in the end each weighted loss is 1/2. The
paper has no 1/2 before the loss of a classification; here all are alike. Weights start at 1/2. A loss below `floor`, as
one that is negative, counts as `floor` for s_k, which else would fall for ever: a weight ends at 1 / (2 floor) at most.
A loss of exactly 0 is that of a task without a target in the step; its s_k learns nothing from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class Uncertainty(Plain):
    """Learned weights.

    Args:
        tasks: names.
        floor: the least loss.

    Raises:
        ValueError: when `floor` is not positive.
    """

    def __init__(self, *, tasks: Sequence[str], floor: float) -> None:
        super().__init__()
        if floor <= 0:
            raise ValueError(f"balance.floor = {floor}; set it above 0")
        self.floor = floor
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, look: Look) -> Tensor:
        """(K,), positive."""
        return 0.5 * torch.exp(-self.log_variances.detach().double())

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """A scalar, float64, with a graph to the log-variances."""
        s = self.log_variances.double()
        terms = 0.5 * torch.exp(-s) * losses.clamp(min=self.floor) + 0.5 * s
        return torch.where(losses != 0, terms, 0.0).sum()
