"""MGDA: the shortest vector between the tasks' gradients (1810.04650).

    w = argmin |sum_k w_k g_k|^2   with w_k >= 0 and sum_k w_k = 1

No task's loss rises along it. Weights sum to 1 and not to K, so that a step is some K times shorter than that of
balance=fixed; the shortest vector is near the shortest gradient, and so a task that is nearly done rules the step.
The solver is torchjd's (Frank-Wolfe, algorithm 2 of the paper). With gradients of features this is the paper's MGDA-UB.
"""

from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, weigh
from mmtrain.balance.plain import Plain


class MGDA(Plain):
    """Weights of the shortest convex combination.

    Args:
        gradients_of: parameters or features: which gradients are compared.
        epsilon: the solver stops when a round moves the weights by less.
        max_iters: rounds of the solver.
    """

    def __init__(self, *, gradients_of: str, epsilon: float, max_iters: int) -> None:
        super().__init__()
        # torchjd takes a second to import, and only these rules want it
        from torchjd.aggregation import MGDAWeighting

        self._gradients = Gradients(of=gradients_of)
        self._rule = MGDAWeighting(epsilon=epsilon, max_iters=max_iters)

    def weights(self, look: Look) -> Tensor:
        """(K,), of sum 1; a task without a gradient has 1 / K, and takes nothing from the others."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, self._rule, otherwise=1 / len(gramian))

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
