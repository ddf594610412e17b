"""UPGrad: each gradient is projected to where no task is hurt, then the mean is taken (2406.16232).

    step = mean_i p(g_i),   p(x) = the nearest d to x with g_k.d >= 0 for all k

Unlike PCGrad's, the projection heeds all tasks at once, needs no order, and the sum conflicts with none. Without a
conflict all weights are 1 / K: mean-type, so that a step is K times shorter than that of balance=fixed. Of K tasks, k
have a gradient in a step, and they weigh k / K of what they would alone: the mean is over all tasks.

The projection is p(x) = x + sum_k v_k g_k with the v_k >= 0 that make it shortest: non-negative least squares. It is
solved exactly, and for unit vectors, so that how long a gradient is changes only how the projections are added.
torchjd's UPGrad adds 1e-4 to the diagonal of the Gramian before it solves the same problem, which leaves conflicts of
gradients that are 100 times shorter than others.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, unit_vectors, weigh
from mmtrain.balance.plain import Plain


class UPGrad(Plain):
    """Weights of the mean of projected gradients.

    Args:
        gradients_of: parameters or features: which gradients are compared.
    """

    def __init__(self, *, gradients_of: str) -> None:
        super().__init__()
        self._gradients = Gradients(of=gradients_of)

    def weights(self, look: Look) -> Tensor:
        """(K,), 1 / K or more each; a task without a gradient has 1 / K."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, lambda g: projected(g).sum(dim=0), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def projected(gramian: Tensor) -> Tensor:
    """How each projected gradient is mixed from the gradients, (K, K).

    Args:
        gramian: (K, K), with a positive diagonal.

    >>> projected(torch.tensor([[4.0, -2.0], [-2.0, 4.0]], dtype=torch.double)).round(decimals=6).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    norms, units = unit_vectors(gramian)
    matrix = units.numpy()
    added = torch.stack([torch.from_numpy(nnls(matrix, -x)[0]) for x in matrix.T])
    mixes = torch.eye(len(norms), dtype=norms.dtype) + added
    return norms.unsqueeze(1) * mixes / norms
