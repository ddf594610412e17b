"""Geometric loss strategy (GLS, 1904.08492): the loss is the geometric mean of the tasks' losses.

    L = (L_1 ... L_K)^(1/K),   w_k = dL / dL_k = L / (K L_k)

Each task counts by its relative improvement. With equal losses all weights are 1 / K: mean-type, so that a step is K
times shorter than that of balance=fixed. A loss below `floor`, as one that is negative, counts as `floor`. A loss of
exactly 0 is that of a task without a target in the step; the mean is that of the others, and its weight is 0.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class GLS(Plain):
    """Weights whose weighted sum of losses has the gradient of the geometric mean.

    Args:
        floor: the least loss.

    Raises:
        ValueError: when `floor` is not positive.
    """

    def __init__(self, *, floor: float) -> None:
        super().__init__()
        if floor <= 0:
            raise ValueError(f"balance.floor = {floor}; set it above 0")
        self.floor = floor

    def weights(self, look: Look) -> Tensor:
        """(K,), zero or more."""
        losses = look.losses()
        there = losses != 0
        logs = losses.clamp(min=self.floor).log()
        count = there.sum().clamp(min=1)
        mean = torch.where(there, logs, 0.0).sum() / count
        return torch.where(there, torch.exp(mean - logs) / count, 0.0)
