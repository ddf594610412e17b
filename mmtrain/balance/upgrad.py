"""UPGrad: project each gradient to where it hurts no task, then take the mean (2406.16232).

    step = mean_i p(g_i),   p(x) = the nearest d to x with g_k.d >= 0 for all k

In contrast to PCGrad, the projection considers all tasks at once and needs no order, and the sum conflicts with no
gradient. Without conflicts all weights are 1 / K. The result is mean-type: a step is K times shorter than with
balance=fixed. If only k of K tasks have a gradient in a step, their weights are k / K of those without the other tasks,
because the mean is over all tasks.

The projection is p(x) = x + sum_k v_k g_k, with the v_k >= 0 that make it shortest: non-negative least squares. It is
solved exactly, for unit vectors, so the length of a gradient matters only in the sum of the projections. torchjd's
UPGrad adds 1e-4 to the diagonal of the Gramian before it solves the same problem. This leaves conflicts with gradients
that are 100 times shorter than others.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, unit_vectors, weigh
from mmtrain.balance.plain import BaseBalance


class UPGrad(BaseBalance):
    """Weights of the mean of projected gradients.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
    """

    def __init__(self, *, gradients_of: GradientSource) -> None:
        super().__init__()
        self._gradients = Gradients(of=gradients_of)

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), each at least 1 / K; a task without a gradient gets 1 / K."""
        gramian = self._gradients.gramian(step)
        return weigh(gramian, lambda g: upgrad_matrix(g).sum(dim=0), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def upgrad_matrix(gramian: Tensor) -> Tensor:
    """Return the mixing matrix (K, K): row i is projected gradient i as a combination of the gradients.

    Args:
        gramian: (K, K), with a positive diagonal.

    >>> upgrad_matrix(torch.tensor([[4.0, -2.0], [-2.0, 4.0]], dtype=torch.double)).round(decimals=6).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    norms, units = unit_vectors(gramian)
    matrix = units.numpy()
    added = torch.stack([torch.from_numpy(nnls(matrix, -x)[0]) for x in matrix.T])
    mixes = torch.eye(len(norms), dtype=norms.dtype) + added
    return norms.unsqueeze(1) * mixes / norms
