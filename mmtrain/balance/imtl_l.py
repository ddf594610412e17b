"""IMTL-L: learned factors scale all losses to one size (Towards Impartial Multi-task Learning, ICLR 2021).

    L = sum_k exp(s_k) L_k - s_k

The network is trained on the losses times exp(s_k), and s_k on L with constant losses; these are the two parts of the
gradient of L. The optimal exp(s_k) is 1 / L_k, so each weighted loss approaches 1. Weights start at 1. For s_k, a loss
below `floor`, including a negative one, counts as `floor`. Otherwise s_k would grow without bound; the limit of a
weight is 1 / floor. A loss of exactly 0 means that the task has no target in the step, and s_k is not updated from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmtrain.annotations import PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class IMTLL(BaseBalance):
    """Weights learned by gradient descent.

    Args:
        tasks: names of the tasks.
        floor: lower bound for losses.

    Raises:
        ValueError: if `floor` is not positive.
    """

    def __init__(self, *, tasks: Sequence[str], floor: PositiveFloat) -> None:
        super().__init__()
        if floor <= 0:
            raise ValueError(f"balance.floor = {floor}; set it above 0")
        self.floor = floor
        self.log_scales = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), positive."""
        return torch.exp(self.log_scales.detach().double())

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Return a scalar, float64, with a graph to the logarithms of the scales."""
        s = self.log_scales.double()
        terms = torch.exp(s) * losses.clamp(min=self.floor) - s
        return torch.where(losses != 0, terms, 0.0).sum()
