"""Random loss weighting (RLW, 2111.10603): new random weights in every step.

    w = K softmax(z),   z_k ~ N(0, 1)

Weights sum to K, so a step is as long as with balance=fixed; the paper's sum to 1. They are drawn from the seed of the
step and do not change the global random state.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class RLW(BaseBalance):
    """Random weights."""

    def __init__(self) -> None:
        # explicit, so that the configuration checks see that there are no arguments
        super().__init__()

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,) with sum K."""
        # drawn on the CPU: equal on every rank and device
        generator = torch.Generator().manual_seed(step.seed)
        drawn = torch.randn(len(step.names), generator=generator, dtype=torch.double)
        return len(step.names) * drawn.softmax(dim=0)
