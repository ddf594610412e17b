"""Fixed weights: `task.NAME.weight` of each task, and no other factor."""

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class Fixed(Plain):
    """A weight of 1 for every task."""

    def __init__(self) -> None:
        # explicit, so that the configuration checks see that there are no arguments
        super().__init__()

    def weights(self, look: Look) -> Tensor:
        """Return ones, (K,)."""
        return torch.ones(len(look.names), dtype=torch.double)
