"""Smooth Tchebycheff scalarization (STCH, 2402.19078): minimize a smooth maximum of the losses.

    L = mu log sum_k exp(l_k (L_k - z_k) / mu),   w_k = dL / dL_k = l_k softmax_k(l_k (L_k - z_k) / mu)

The task with the largest scaled loss gets the largest weight, the more so the smaller mu is. Which one that is depends
on the units of the losses. Here l_k is 1 / L_k in the last epoch of the warm-up (the nadir), so each l_k L_k starts
near 1 and mu has no unit. The authors' code also divides by the nadir, and then takes the logarithm of each loss. Here
no logarithm is taken, so losses may be zero or negative, and during warm-up all weights are 1 / K. The ideal z_k is 0.
The result is mean-type: the softmax sums to 1, so a step is about K times shorter than with balance=fixed. Without
warm-up, or for a task whose nadir is not positive, l_k is 1. A loss of exactly 0 means that the task has no target in
the step. It is excluded from the softmax, and its weight is 0.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import NonNegativeInt, PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.plain import BaseBalance


class STCH(BaseBalance):
    """Weights of the smooth maximum.

    Args:
        mu: smoothness of the maximum.
        warmup_epochs: number of epochs of equal weights at the start.

    Raises:
        ValueError: if `mu` is not positive or `warmup_epochs` is negative.
    """

    def __init__(self, *, mu: PositiveFloat, warmup_epochs: NonNegativeInt) -> None:
        super().__init__()
        if mu <= 0 or warmup_epochs < 0:
            raise ValueError(
                f"balance.mu = {mu} and warmup_epochs = {warmup_epochs}; set mu above 0 and warmup_epochs to 0 or more"
            )
        self.mu = mu
        self.warmup_epochs = warmup_epochs
        self._epochs = 0
        self._nadir: dict[str, float] = {}

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), zero or more."""
        losses = step.losses().cpu()
        if self._epochs < self.warmup_epochs:
            return torch.full_like(losses, 1 / len(losses))
        nadir = [self._nadir.get(name, 1.0) for name in step.names]
        scales = torch.tensor([1 / worst if worst > 0 else 1.0 for worst in nadir], dtype=torch.double)
        present = losses != 0
        # a finite number instead of -inf: a softmax over -inf only would be NaN
        terms = torch.where(present, scales * losses / self.mu, torch.finfo(torch.double).min)
        return torch.where(present, scales * terms.softmax(dim=0), 0.0)

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Store the losses of the last epoch of the warm-up as the nadir."""
        self._epochs += 1
        if self._epochs == self.warmup_epochs:
            self._nadir = dict(losses)

    def extra_state(self) -> dict[str, Any]:
        """Return the number of epochs and the nadir."""
        return {"epochs": self._epochs, "nadir": self._nadir}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._epochs, self._nadir = state["epochs"], state["nadir"]
