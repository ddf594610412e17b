"""MGDA: the shortest vector in the convex hull of the tasks' gradients (1810.04650).

    w = argmin |sum_k w_k g_k|^2   with w_k >= 0 and sum_k w_k = 1

No task's loss increases along it. Weights sum to 1, not to K, so a step is about K times shorter than with
balance=fixed. The shortest vector is close to the shortest gradient, so a task near its optimum dominates the step.
With gradients of features, this is the paper's MGDA-UB.

The paper's solver (Frank-Wolfe, algorithm 2) converges slowly, especially if lengths differ. Here an active-set method
solves the problem exactly. For any m, minimizing |sum_k v_k g_k|^2 + m^2 (sum_k v_k - 1)^2 over v_k >= 0 gives the same
w up to a factor. That is a non-negative least squares problem. m is the shortest length.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, unit_vectors, weigh
from mmtrain.balance.plain import BaseBalance


class MGDA(BaseBalance):
    """Weights of the shortest convex combination.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
    """

    def __init__(self, *, gradients_of: GradientSource) -> None:
        super().__init__()
        self._gradients = Gradients(of=gradients_of)

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,). They sum to 1 over tasks with a gradient; any other task gets 1 / K in addition."""
        gramian = self._gradients.gramian(step)
        return weigh(gramian, min_norm_weights, otherwise=1 / len(gramian))

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def min_norm_weights(gramian: Tensor) -> Tensor:
    """Return the weights of the shortest convex combination, (K,).

    Args:
        gramian: (K, K), with a positive diagonal.

    >>> min_norm_weights(torch.tensor([[4.0, 0.0], [0.0, 1e12]], dtype=torch.double)).tolist()
    [0.999999999996, 3.999999999984e-12]
    """
    norms, units = unit_vectors(gramian)
    inverse = norms.min() / norms  # inverse lengths: weights of unit vectors are w_k |g_k|
    goal = torch.zeros(len(units) + 1, dtype=units.dtype)
    goal[-1] = 1.0
    result, _ = nnls(torch.cat([units, inverse.unsqueeze(0)]).numpy(), goal.numpy())
    weights = torch.from_numpy(result) * inverse
    return weights / weights.sum()
