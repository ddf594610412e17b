"""Nash-MTL: the step on which the tasks would agree if they bargained (2202.01017).

    max over d of sum_k log(g_k.d)   <=>   G a = 1 / a,   d = sum_k a_k g_k

Each task gains by its own relative improvement, so that the scale of a loss does not matter: a_k |g_k| is about 1, and
|d| = sqrt(K) however small the gradients are. Weights are thus large late in training; `max_norm` cuts |d|, to 1 in the
authors' code, and the learning rate is in units of such steps.

The authors, and torchjd after them, solve a sequence of approximations that starts where the last step ended and needs
cvxpy with ECOS; for gradients of length 0.01 torchjd's gives up and leaves weights of 1. But the equation is where the
gradient of a convex function is zero,

    f(a) = a.G a / 2 - sum_k log(a_k)

and Newton's method finds it in a few rounds, damped by 1 / (1 + l) with l the Newton decrement, with which f (being
self-concordant) falls in each and a stays positive. It needs no state. It is solved in cosines, a_k |g_k| for a_k, with
`RIDGE` on their diagonal: where some combination of gradients is 0 there is no solution, and this bounds a_k |g_k|.
"""

from typing import Any

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, with_gradient
from mmtrain.balance.plain import Plain

RIDGE = 1e-4
ENOUGH = 1e-10
ROUNDS = 200


class Nash(Plain):
    """Weights of the bargain.

    Args:
        gradients_of: parameters or features: which gradients are compared.
        every: steps for which weights are kept; the others cost no look at gradients.
        max_norm: the longest step, by the gradients that are compared; None for no limit.

    Raises:
        ValueError: when `every` or `max_norm` is not positive.
    """

    def __init__(self, *, gradients_of: str, every: int, max_norm: float | None) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"balance.every = {every}; set it to 1 or more")
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"balance.max_norm = {max_norm}; set it above 0, or to null for no limit")
        self._gradients = Gradients(of=gradients_of)
        self.every = every
        self.max_norm = max_norm
        self._weights: list[float] = []
        self._steps = 0

    def weights(self, look: Look) -> Tensor:
        """(K,), positive; a task without a gradient has 1."""
        if self._steps % self.every == 0:
            self._weights = self._bargained(self._gradients.gramian(look)).tolist()
        self._steps += 1
        return torch.tensor(self._weights, dtype=torch.double)

    def _bargained(self, gramian: Tensor) -> Tensor:
        there = with_gradient(gramian)
        weights = torch.ones_like(gramian.diagonal())
        part = gramian[there][:, there]
        found = bargain(part)
        if self.max_norm is not None:
            length = (found @ part @ found).clamp(min=0.0).sqrt()
            found = found * (self.max_norm / length.clamp(min=self.max_norm))
        weights[there] = found
        return weights

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients that were looked at last."""
        return self._gradients.seen

    def state(self) -> dict[str, Any]:
        """The weights that are kept, and the steps so far."""
        return {"weights": self._weights, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self._weights, self._steps = state["weights"], state["steps"]


def bargain(gramian: Tensor) -> Tensor:
    """The positive a with G a = 1 / a, (K,).

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
        if decrement < ENOUGH:
            break
    return shares / norms
