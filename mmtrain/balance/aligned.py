"""Aligned-MTL: gradients are made orthogonal and of one length before they are averaged (2305.19000).

    G = V diag(s) V^T,   w = sqrt(s_min) V diag(s)^(-1/2) V^T (1 / K, ..., 1 / K)

over the s > 0 of the Gramian G. Gradients that are orthogonal and of one length already have 1 / K each: mean-type, so
that a step is some K times shorter than that of balance=fixed. Every gradient comes to the length of the weakest
direction, or of the one that `scale_mode` names. Of K tasks, k have a gradient in a step, and they weigh k / K of what
they would alone: the mean is over all tasks.

torchjd decomposes G, whose s are squares of the gradients' singular values, and leaves out an s below 1e-15 of the
largest: that of a gradient which is 1e8 times shorter. Here the gradients themselves are decomposed.
"""

from typing import Literal

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, unit_vectors, weigh
from mmtrain.balance.plain import Plain

MODES = ("min", "median", "rmse")


class Aligned(Plain):
    """Weights of the mean of aligned gradients.

    Args:
        gradients_of: parameters or features: which gradients are compared.
        scale_mode: min, median or rmse: which s stands for s_min.

    Raises:
        ValueError: when `scale_mode` is none of these.
    """

    def __init__(self, *, gradients_of: str, scale_mode: Literal["min", "median", "rmse"]) -> None:
        super().__init__()
        if scale_mode not in MODES:
            raise ValueError(f"balance.scale_mode = {scale_mode}; set it to {', '.join(MODES[:-1])} or {MODES[-1]}")
        self._gradients = Gradients(of=gradients_of)
        self.scale_mode = scale_mode

    def weights(self, look: Look) -> Tensor:
        """(K,); a task without a gradient has 1 / K."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, lambda g: align(g, self.scale_mode).sum(dim=1), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def align(gramian: Tensor, scale_mode: Literal["min", "median", "rmse"]) -> Tensor:
    """How each aligned gradient is mixed from the gradients, (K, K).

    Args:
        gramian: (K, K), with a positive diagonal.
        scale_mode: which singular value all of them get.

    >>> align(torch.tensor([[1.0, 0.0], [0.0, 16.0]], dtype=torch.double), "min").tolist()
    [[1.0, 0.0], [0.0, 0.25]]
    """
    norms, units = unit_vectors(gramian)
    _, values, directions = torch.linalg.svd(units * norms, full_matrices=False)
    scales = {"min": values[-1], "median": values.median(), "rmse": values.square().mean().sqrt()}
    return scales[scale_mode] * directions.T / values @ directions
