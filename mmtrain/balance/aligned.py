"""Aligned-MTL: make the gradients orthogonal and of equal length, then average them (2305.19000).

    G = V diag(s) V^T,   w = sqrt(s_min) V diag(s)^(-1/2) V^T (1 / K, ..., 1 / K)

over the s > 0 of the Gramian G. If gradients are already orthogonal and of equal length, each weight is 1 / K. The
result is mean-type: a step is about K times shorter than with balance=fixed. Every gradient gets the length of the
weakest direction, or of the direction that `scale_mode` selects. If only k of K tasks have a gradient in a step, their
weights are k / K of those without the other tasks, because the mean is over all tasks.

torchjd decomposes G, whose eigenvalues s are the squared singular values of the gradients. It drops an s below 1e-15 of
the largest, which is the s of a gradient that is 1e8 times shorter. The decomposition here is that of the gradients.
"""

from typing import Literal

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, unit_vectors, weigh
from mmtrain.balance.plain import BaseBalance

MODES = ("min", "median", "rmse")


class Aligned(BaseBalance):
    """Weights of the mean of aligned gradients.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
        scale_mode: "min", "median" or "rmse" of the singular values, in place of sqrt(s_min).

    Raises:
        ValueError: for any other `scale_mode`.
    """

    def __init__(self, *, gradients_of: GradientSource, scale_mode: Literal["min", "median", "rmse"]) -> None:
        super().__init__()
        if scale_mode not in MODES:
            raise ValueError(f"balance.scale_mode = {scale_mode}; set it to {', '.join(MODES[:-1])} or {MODES[-1]}")
        self._gradients = Gradients(of=gradients_of)
        self.scale_mode = scale_mode

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,); a task without a gradient gets 1 / K."""
        gramian = self._gradients.gramian(step)
        return weigh(gramian, lambda g: align(g, self.scale_mode).sum(dim=1), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def align(gramian: Tensor, scale_mode: Literal["min", "median", "rmse"]) -> Tensor:
    """Return the mixing matrix (K, K): row k is aligned gradient k as a combination of the gradients.

    Args:
        gramian: (K, K), with a positive diagonal.
        scale_mode: statistic of the singular values that becomes the common length.

    >>> align(torch.tensor([[1.0, 0.0], [0.0, 16.0]], dtype=torch.double), "min").tolist()
    [[1.0, 0.0], [0.0, 0.25]]
    """
    norms, units = unit_vectors(gramian)
    _, values, directions = torch.linalg.svd(units * norms, full_matrices=False)
    scales = {"min": values[-1], "median": values.median(), "rmse": values.square().mean().sqrt()}
    return scales[scale_mode] * directions.T / values @ directions
