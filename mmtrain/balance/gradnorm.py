"""GradNorm: learn weights with which all tasks train at similar rates (1711.02257).

    n_k = |w_k g_k|,   r_k = (L_k / L_k(0)) / mean_i(L_i / L_i(0)),   t_k = mean_i(n_i) r_k^alpha
    w_k = w_k - lr d/dw_k sum_i |n_i - t_i| = w_k - lr sign(n_k - t_k) |g_k|,   then scaled to sum K

with t constant, as in the paper. A step uses the weights from before its own update. The paper takes gradients of the
last shared layer; here `gradients_of` selects them. The unit of `lr` is weight per gradient length. Weights, and ratios
of a loss to its first value L_k / L_k(0), are at least `LEAST`. If the first value is negative, the ratio counts as 1.
L_k(0) is the first loss that is not exactly 0; a loss of 0 means that the task has no target in the step. In such a
step the task keeps its weight, and the weights of the others keep their sum.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import NonNegativeFloat, PositiveFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, with_gradient
from mmtrain.balance.plain import BaseBalance

MIN_WEIGHT = 1e-4


class GradNorm(BaseBalance):
    """Weights that follow gradient lengths.

    Args:
        tasks: names of the tasks.
        gradients_of: "parameters" or "features": the gradients to measure.
        alpha: how strongly slow tasks are favoured; 0 makes all lengths equal.
        lr: learning rate of the weights.

    Raises:
        ValueError: if `lr` is not positive.
    """

    def __init__(
        self, *, tasks: Sequence[str], gradients_of: GradientSource, alpha: NonNegativeFloat, lr: PositiveFloat
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"balance.lr = {lr}; set it above 0")
        self._gradients = Gradients(of=gradients_of)
        self.alpha = alpha
        self.lr = lr
        self._weights = [1.0] * len(tasks)
        self._first = [0.0] * len(tasks)

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), positive, with sum K."""
        gramian = self._gradients.gramian(step)
        losses = step.losses().cpu()
        first = torch.tensor(self._first, dtype=torch.double)
        first = torch.where((first == 0) & losses.isfinite(), losses, first)
        weights = torch.tensor(self._weights, dtype=torch.double)
        norms = gramian.diagonal().clamp(min=0.0).sqrt()
        present = with_gradient(gramian) & losses.isfinite()
        after = weights.clone()
        if present.any():
            rates = torch.where(first > 0, losses / first, 1.0)[present].clamp(min=MIN_WEIGHT)
            after[present] = updated_weights(weights[present], norms[present], rates, alpha=self.alpha, lr=self.lr)
        self._weights, self._first = after.tolist(), first.tolist()
        return weights

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen

    def extra_state(self) -> dict[str, Any]:
        """Return the weights of the next step, and the first losses."""
        return {"weights": self._weights, "first": self._first}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._weights, self._first = state["weights"], state["first"]


def updated_weights(weights: Tensor, norms: Tensor, rates: Tensor, *, alpha: float, lr: float) -> Tensor:
    """Return the weights of the next step, (K,), with an unchanged sum.

    Args:
        weights: (K,).
        norms: (K,), gradient lengths without weights.
        rates: (K,), losses divided by their first values.
        alpha: exponent of the rates.
        lr: learning rate of the weights.
    """
    lengths = weights * norms
    targets = lengths.mean() * (rates / rates.mean()) ** alpha
    after = (weights - lr * torch.sign(lengths - targets) * norms).clamp(min=MIN_WEIGHT)
    return after * (weights.sum() / after.sum())
