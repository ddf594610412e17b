"""IMTL-L: losses are scaled to one size by learned factors (Towards Impartial Multi-task Learning, ICLR 2021).

    L = sum_k exp(s_k) L_k - s_k

The network sees the losses times exp(s_k), and s_k sees the whole with the losses as they are: those are the two parts
of the gradient of L. The best exp(s_k) is 1 / L_k, so that in the end each weighted loss is 1. Weights start at 1. A
loss below `floor`, as one that is negative, counts as `floor` for s_k, which else would grow for ever: a weight ends at
1 / floor at most. A loss of exactly 0 is that of a task without a target in the step; its s_k learns nothing from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class IMTLL(Plain):
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
        self.log_scales = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, look: Look) -> Tensor:
        """(K,), positive."""
        return torch.exp(self.log_scales.detach().double())

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """A scalar, float64, with a graph to the logarithms of the scales."""
        s = self.log_scales.double()
        terms = torch.exp(s) * losses.clamp(min=self.floor) - s
        return torch.where(losses != 0, terms, 0.0).sum()
