"""Nash-MTL: the step that is the Nash bargaining solution of the tasks (2202.01017).

    max over d of sum_k log(g_k.d)   <=>   G a = 1 / a,   d = sum_k a_k g_k

Each task gains by its own relative improvement, so the scale of a loss does not matter. a_k |g_k| is about 1, and |d| =
sqrt(K) for gradients of any length. So weights are large late in training. `max_norm` limits |d| (to 1 in the authors'
code), and the learning rate is in units of such steps.

The authors' code, like torchjd, solves a sequence of approximations that starts at the last step's solution and needs
cvxpy with ECOS. For gradients of length 0.01, torchjd's solver fails and leaves weights of 1. But the equation is the
stationary point of a convex function,

    f(a) = a.G a / 2 - sum_k log(a_k)

Newton's method finds it in a few iterations, damped by 1 / (1 + l) with l the Newton decrement. Because f is
self-concordant, it decreases in each iteration and a stays positive. No state is needed. The problem is solved in
cosines, with a_k |g_k| as unknowns and `RIDGE` added to the diagonal. If some combination of gradients is 0, there is
no solution, and the ridge bounds a_k |g_k|.
"""

from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import PositiveFloat, PositiveInt
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, with_gradient
from mmtrain.balance.plain import BaseBalance

RIDGE = 1e-4
TOLERANCE = 1e-10
ROUNDS = 200


class Nash(BaseBalance):
    """Weights of the bargaining solution.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
        update_every: number of steps between updates of the weights; other steps compute no task gradients.
        max_norm: maximum length of the step, in terms of the compared gradients; None for no limit.

    Raises:
        ValueError: if `update_every` or `max_norm` is not positive.
    """

    def __init__(
        self, *, gradients_of: GradientSource, update_every: PositiveInt, max_norm: PositiveFloat | None
    ) -> None:
        super().__init__()
        if update_every < 1:
            raise ValueError(f"balance.update_every = {update_every}; set it to 1 or more")
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"balance.max_norm = {max_norm}; set it above 0, or to null for no limit")
        self._gradients = Gradients(of=gradients_of)
        self.update_every = update_every
        self.max_norm = max_norm
        self._weights: list[float] = []
        self._steps = 0

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), positive; a task without a gradient gets 1."""
        if self._steps % self.update_every == 0:
            self._weights = self._bargained(self._gradients.gramian(step)).tolist()
        self._steps += 1
        return torch.tensor(self._weights, dtype=torch.double)

    def _bargained(self, gramian: Tensor) -> Tensor:
        present = with_gradient(gramian)
        weights = torch.ones_like(gramian.diagonal())
        part = gramian[present][:, present]
        result = bargain(part)
        if self.max_norm is not None:
            length = (result @ part @ result).clamp(min=0.0).sqrt()
            result = result * (self.max_norm / length.clamp(min=self.max_norm))
        weights[present] = result
        return weights

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients at the last update."""
        return self._gradients.seen

    def extra_state(self) -> dict[str, Any]:
        """Return the current weights and the number of steps."""
        return {"weights": self._weights, "steps": self._steps}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._weights, self._steps = state["weights"], state["steps"]


def bargain(gramian: Tensor) -> Tensor:
    """Return the positive a with G a = 1 / a, (K,).

    Args:
        gramian: (K, K), with a positive diagonal.

    >>> bargain(torch.tensor([[4.0, 0.0], [0.0, 16.0]], dtype=torch.double)).round(decimals=3).tolist()
    [0.5, 0.25]
    """
    norms = gramian.diagonal().sqrt()
    cosines = gramian / torch.outer(norms, norms) + RIDGE * torch.eye(len(norms), dtype=gramian.dtype)
    shares = torch.ones_like(norms)
    for _ in range(ROUNDS):
        slope = cosines @ shares - 1 / shares
        move = torch.linalg.solve(cosines + torch.diag(shares**-2), slope)
        decrement = (slope @ move).clamp(min=0.0).sqrt()
        shares = shares - move / (1 + decrement)
        if decrement < TOLERANCE:
            break
    return shares / norms
