"""Dynamic weight average (DWA, 1803.10704): a task whose loss falls slowly counts more.

    w_k = K exp(r_k / T) / sum_i exp(r_i / T),   r_k = L_k(t - 1) / L_k(t - 2)

of the mean losses of the last two epochs; ones in the first two. Weights sum to K. Where one of the two means is not
positive, or is not there, the ratio says nothing about speed and counts as 1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.plain import Plain


class DWA(Plain):
    """Weights for an epoch, by what the last two made of each loss.

    Args:
        temperature: T; the higher, the more equal.

    Raises:
        ValueError: when `temperature` is not positive.
    """

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"balance.temperature = {temperature}; set it above 0")
        self.temperature = temperature
        self._epochs: list[dict[str, float]] = []

    def weights(self, look: Look) -> Tensor:
        """(K,), of sum K."""
        if len(self._epochs) < 2:
            return torch.ones(len(look.names), dtype=torch.double)
        before, last = ([epoch.get(name, 0.0) for name in look.names] for epoch in self._epochs)
        ratios = [now / then if now > 0 and then > 0 else 1.0 for now, then in zip(last, before, strict=True)]
        return len(ratios) * (torch.tensor(ratios, dtype=torch.double) / self.temperature).softmax(dim=0)

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Keep the last two."""
        self._epochs = [*self._epochs[-1:], dict(losses)]

    def state(self) -> dict[str, Any]:
        """The losses of the last two epochs."""
        return {"epochs": self._epochs}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self._epochs = state["epochs"]
