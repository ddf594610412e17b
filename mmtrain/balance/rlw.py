"""Random loss weighting (RLW, 2111.10603): other weights in every step.

    w = K softmax(z),   z_k ~ N(0, 1)

Weights sum to K, where the paper's sum to 1, so that a step is as long as one of balance=fixed. They are drawn from the
seed of the step and leave the global random state as it was.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class RLW(Plain):
    """Weights by chance."""

    def __init__(self) -> None:
        # said here, so that the checks see that it takes nothing
        super().__init__()

    def weights(self, look: Look) -> Tensor:
        """(K,), of sum K."""
        # drawn on the CPU: the same on every rank and device
        generator = torch.Generator().manual_seed(look.seed)
        drawn = torch.randn(len(look.names), generator=generator, dtype=torch.double)
        return len(look.names) * drawn.softmax(dim=0)
