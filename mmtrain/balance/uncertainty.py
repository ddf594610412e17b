"""Uncertainty weighting: each task has a learned noise variance (1705.07115).

    L = sum_k exp(-s_k) L_k / 2 + s_k / 2,   s_k = log sigma_k^2

The network is trained on the losses times exp(-s_k) / 2, and s_k on L with constant losses; these are the two parts of
the gradient of L. The optimal s_k is the logarithm of the loss, so each weighted loss approaches 1/2. The paper has no
1/2 before a classification loss; here all tasks are treated equally. Weights start at 1/2. For s_k, a loss below
`floor`, including a negative one, counts as `floor`. Otherwise s_k would decrease without bound; the limit of a weight
is 1 / (2 floor). A loss of exactly 0 means that the task has no target in the step, and s_k is not updated from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmtrain.annotations import PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class Uncertainty(BaseBalance):
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
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), positive."""
        return 0.5 * torch.exp(-self.log_variances.detach().double())

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Return a scalar, float64, with a graph to the log variances."""
        s = self.log_variances.double()
        terms = 0.5 * torch.exp(-s) * losses.clamp(min=self.floor) + 0.5 * s
        return torch.where(losses != 0, terms, 0.0).sum()
