"""Fixed weights: each task counts with its own, `task.NAME.weight`, and nothing else."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.balance.balance import Look


class Fixed(nn.Module):
    """One for every task."""

    def __init__(self) -> None:
        super().__init__()

    def weights(self, look: Look) -> Tensor:
        """(K,) ones."""
        return torch.ones(len(look.names), dtype=torch.double)

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Nothing to learn."""
        return None

    def after_step(self, look: Look) -> None:
        """Nothing to learn."""

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Nothing to learn."""

    def values(self) -> dict[str, float]:
        """Nothing beside the weights."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to take."""
