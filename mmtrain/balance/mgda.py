"""MGDA: the shortest vector between the tasks' gradients (1810.04650).

    w = argmin |sum_k w_k g_k|^2   with w_k >= 0 and sum_k w_k = 1

No task's loss rises along it. Weights sum to 1 and not to K, so that a step is some K times shorter than that of
balance=fixed; the shortest vector is near the shortest gradient, and so a task that is nearly done rules the step.
With gradients of features this is the paper's MGDA-UB.

The paper's solver (Frank-Wolfe, algorithm 2) converges slowly, and the more slowly the more lengths differ. Here the
problem is solved exactly, by an active-set method. Minimizing |sum_k v_k g_k|^2 + m^2 (sum_k v_k - 1)^2 over v_k >= 0
for any m gives the same w up to a factor: it is a non-negative least squares problem. m is the shortest length.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, unit_vectors, weigh
from mmtrain.balance.plain import Plain


class MGDA(Plain):
    """Weights of the shortest convex combination.

    Args:
        gradients_of: parameters or features: which gradients are compared.
    """

    def __init__(self, *, gradients_of: str) -> None:
        super().__init__()
        self._gradients = Gradients(of=gradients_of)

    def weights(self, look: Look) -> Tensor:
        """(K,), of sum 1; a task without a gradient has 1 / K, and takes nothing from the others."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, shortest, otherwise=1 / len(gramian))

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def shortest(gramian: Tensor) -> Tensor:
    """Weights of the shortest convex combination, (K,).

    Args:
        gramian: (K, K), with a positive diagonal.

    >>> shortest(torch.tensor([[4.0, 0.0], [0.0, 1e12]], dtype=torch.double)).tolist()
    [0.999999999996, 3.999999999984e-12]
    """
    norms, units = unit_vectors(gramian)
    inverse = norms.min() / norms  # of lengths: weights of unit vectors are w_k |g_k|
    goal = torch.zeros(len(units) + 1, dtype=units.dtype)
    goal[-1] = 1.0
    found, _ = nnls(torch.cat([units, inverse.unsqueeze(0)]).numpy(), goal.numpy())
    weights = torch.from_numpy(found) * inverse
    return weights / weights.sum()
