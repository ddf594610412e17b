"""Dynamic weight average (DWA, 1803.10704): a task whose loss decreases slowly gets a larger weight.

    w_k = K exp(r_k / T) / sum_i exp(r_i / T),   r_k = L_k(t - 1) / L_k(t - 2)

L_k are mean losses of the last two epochs. Weights are 1 in the first two epochs. They sum to K. If one of the two
means is missing or not positive, the ratio counts as 1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class DWA(BaseBalance):
    """Weights for one epoch, from the loss ratios of the last two.

    Args:
        temperature: T; a higher value gives more equal weights.

    Raises:
        ValueError: if `temperature` is not positive.
    """

    def __init__(self, *, temperature: PositiveFloat) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"balance.temperature = {temperature}; set it above 0")
        self.temperature = temperature
        self._epochs: list[dict[str, float]] = []

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,) with sum K."""
        if len(self._epochs) < 2:
            return torch.ones(len(step.names), dtype=torch.double)
        before, last = ([epoch.get(name, 0.0) for name in step.names] for epoch in self._epochs)
        ratios = [now / then if now > 0 and then > 0 else 1.0 for now, then in zip(last, before, strict=True)]
        return len(ratios) * (torch.tensor(ratios, dtype=torch.double) / self.temperature).softmax(dim=0)

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Keep the losses of the last two epochs."""
        self._epochs = [*self._epochs[-1:], dict(losses)]

    def extra_state(self) -> dict[str, Any]:
        """Return the losses of the last two epochs."""
        return {"epochs": self._epochs}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._epochs = state["epochs"]
