"""Gradient vaccine (GradVac, 2010.05874): rotate gradients until they are as similar as they usually are.

    c_ij = cos(g_i', g_j);   where c_ij < t_ij:
    g_i' = g_i' + |g_i'| (t_ij sqrt(1 - c_ij^2) - c_ij sqrt(1 - t_ij^2)) / (|g_j| sqrt(1 - t_ij^2)) g_j
    t_ij = (1 - beta) t_ij + beta c_ij
    step = sum_i g_i',   for each i, over all j != i in a random order

The targets t start at 0, where the method equals PCGrad. Weights are 1 if no gradient is rotated. torchjd has the same
method, but its targets are not accessible: they could not be saved with a run, or kept for a task without a gradient. A
target counts as at most 0.999, because 1 would need an infinite weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import Fraction
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, weigh, with_gradient
from mmtrain.balance.plain import BaseBalance

LIMIT = 0.999
TINY = 1e-12


class GradVac(BaseBalance):
    """Weights of the sum of rotated gradients.

    Args:
        tasks: names of the tasks.
        gradients_of: "parameters" or "features": the gradients to compare.
        beta: rate of the moving average of the targets.

    Raises:
        ValueError: if `beta` is not between 0 and 1.
    """

    def __init__(self, *, tasks: Sequence[str], gradients_of: GradientSource, beta: Fraction) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"balance.beta = {beta}; set it between 0 and 1")
        self._gradients = Gradients(of=gradients_of)
        self.beta = beta
        self._targets = torch.zeros(len(tasks), len(tasks), dtype=torch.double).tolist()

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,); a task without a gradient gets 1, and its targets do not change."""
        gramian = self._gradients.gramian(step)
        pairs = torch.nonzero(with_gradient(gramian)).flatten()
        targets = torch.tensor(self._targets, dtype=torch.double)
        part = targets[pairs][:, pairs]
        generator = torch.Generator().manual_seed(step.seed)
        weights = weigh(gramian, lambda g: gradvac_matrix(g, part, self.beta, generator).sum(dim=0), otherwise=1.0)
        targets[pairs[:, None], pairs] = part
        self._targets = targets.tolist()
        return weights

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen

    def extra_state(self) -> dict[str, Any]:
        """Return the targets."""
        return {"targets": self._targets}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self._targets = state["targets"]


def gradvac_matrix(gramian: Tensor, targets: Tensor, beta: float, generator: torch.Generator) -> Tensor:
    """Return the mixing matrix (K, K): row i is rotated gradient i as a combination of the gradients.

    Args:
        gramian: (K, K).
        targets: (K, K), changed in place.
        beta: rate of the moving average of the targets.
        generator: random generator for the order.
    """
    size = len(gramian)
    norms = gramian.diagonal().sqrt()
    cosines = gramian / torch.outer(norms, norms)  # mix gradients of length 1, so that no length is near TINY
    mixes = torch.eye(size, dtype=gramian.dtype)
    for i, mix in enumerate(mixes):
        others = [j for j in range(size) if j != i]
        for place in torch.randperm(size - 1, generator=generator).tolist():
            j = others[place]
            products = cosines @ mix
            norm = (mix @ products).clamp(min=0.0).sqrt()
            cosine = (products[j] / norm.clamp(min=TINY)).clamp(-1.0, 1.0)
            target = targets[i, j].clamp(max=LIMIT)
            if cosine < target:
                target_sine, sine = (1 - target**2).sqrt(), (1 - cosine**2).sqrt()
                mix[j] += norm * (target * sine - cosine * target_sine) / target_sine
            targets[i, j] = (1 - beta) * targets[i, j] + beta * cosine
    return norms.unsqueeze(1) * mixes / norms
