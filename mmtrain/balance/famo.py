"""FAMO: all losses decrease at one relative rate, without computing task gradients (2306.03792, algorithm 1).

    z = softmax(x),   w_k = c z_k / L_k,   c = 1 / sum_i z_i / L_i
    after the step:   x = x - lr (d + weight_decay x),   d = (dz/dx)^T (log L_before - log L_after)

on the same samples, with the losses computed again. A task whose loss decreased less than the others gets a larger
weight. Adam updates x, as in the authors' code. Weights sum to 1: a step is about K times shorter than with
balance=fixed. A loss below `floor`, including a negative one, counts as `floor`. A loss of exactly 0 means that the
task has no target in the step. Its weight is 0, and it counts as unchanged.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import NonNegativeFloat, PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance

BETAS = (0.9, 0.999)
EPS = 1e-8


class FAMO(BaseBalance):
    """Weights that follow the change of each loss.

    Args:
        tasks: names of the tasks.
        lr: learning rate of x.
        weight_decay: weight decay of x.
        floor: lower bound for losses.

    Raises:
        ValueError: if `lr` or `floor` is not positive, or `weight_decay` is negative.
    """

    def __init__(
        self, *, tasks: Sequence[str], lr: PositiveFloat, weight_decay: NonNegativeFloat, floor: PositiveFloat
    ) -> None:
        super().__init__()
        if lr <= 0 or floor <= 0 or weight_decay < 0:
            raise ValueError(
                f"balance.lr = {lr}, floor = {floor}, weight_decay = {weight_decay}; set lr and floor above 0 and"
                " weight_decay to 0 or more"
            )
        self.lr = lr
        self.weight_decay = weight_decay
        self.floor = floor
        # plain numbers, not a parameter: the network's optimizer must not update x
        self._logits = [0.0] * len(tasks)
        self._moments = [[0.0] * len(tasks), [0.0] * len(tasks)]
        self._steps = 0
        self._before = torch.zeros(len(tasks), dtype=torch.double)

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,) with sum 1."""
        self._before = step.losses().cpu()
        shares = self._shares() / self._before.clamp(min=self.floor)
        shares = torch.where(self._before != 0, shares, 0.0)
        return shares / shares.sum() if shares.any() else shares

    def _shares(self) -> Tensor:
        return torch.tensor(self._logits, dtype=torch.double).softmax(dim=0)

    def after_step(self, step: TaskGradients) -> None:
        """Compute the losses again and update x."""
        after = step.losses().cpu()
        fallen = self._before.clamp(min=self.floor).log() - after.clamp(min=self.floor).log()
        fallen = torch.where((self._before != 0) & fallen.isfinite(), fallen, 0.0)
        shares = self._shares()
        logits = torch.tensor(self._logits, dtype=torch.double)
        gradient = shares * (fallen - shares @ fallen) + self.weight_decay * logits
        first, second = torch.tensor(self._moments, dtype=torch.double)
        self._steps += 1
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        scale = (second / (1 - BETAS[1] ** self._steps)).sqrt() + EPS
        logits = logits - self.lr * first / (1 - BETAS[0] ** self._steps) / scale
        self._logits, self._moments = logits.tolist(), [first.tolist(), second.tolist()]

    def extra_state(self) -> dict[str, Any]:
        """Return x and the state of its Adam optimizer."""
        return {"logits": self._logits, "moments": self._moments, "steps": self._steps}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._logits, self._moments, self._steps = state["logits"], state["moments"], state["steps"]
