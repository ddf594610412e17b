"""Geometric loss strategy (GLS, 1904.08492): the loss is the geometric mean of the tasks' losses.

    L = (L_1 ... L_K)^(1/K),   w_k = dL / dL_k = L / (K L_k)

Each task counts by its relative improvement. With equal losses, all weights are 1 / K. The result is mean-type: a step
is K times shorter than with balance=fixed. A loss below `floor`, including a negative one, counts as `floor`. A loss of
exactly 0 means that the task has no target in the step. Its weight is 0, and the mean is over the other tasks.
"""

import torch
from torch import Tensor

from mmtrain.annotations import PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class GLS(BaseBalance):
    """Weights for which the weighted sum of losses has the gradient of their geometric mean.

    Args:
        floor: lower bound for losses.

    Raises:
        ValueError: if `floor` is not positive.
    """

    def __init__(self, *, floor: PositiveFloat) -> None:
        super().__init__()
        if floor <= 0:
            raise ValueError(f"balance.floor = {floor}; set it above 0")
        self.floor = floor

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), zero or more."""
        losses = step.losses()
        present = losses != 0
        logs = losses.clamp(min=self.floor).log()
        count = present.sum().clamp(min=1)
        mean = torch.where(present, logs, 0.0).sum() / count
        return torch.where(present, torch.exp(mean - logs) / count, 0.0)
