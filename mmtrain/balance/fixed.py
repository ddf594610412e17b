"""Fixed weights: `task.NAME.weight` of each task, and no other factor."""

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class Fixed(BaseBalance):
    """A weight of 1 for every task."""

    def __init__(self) -> None:
        # explicit, so that the configuration checks see that there are no arguments
        super().__init__()

    def weights(self, step: TaskGradients) -> Tensor:
        """Return ones, (K,)."""
        return torch.ones(len(step.names), dtype=torch.double)
