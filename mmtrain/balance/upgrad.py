"""UPGrad: each gradient is projected to where no task is hurt, then the mean is taken (2406.16232).

    step = mean_i p(g_i),   p(x) = the nearest d to x with g_k.d >= 0 for all k

Unlike PCGrad's, the projection heeds all tasks at once, needs no order, and the sum conflicts with none. Without a
conflict all weights are 1 / K: mean-type, so that a step is K times shorter than that of balance=fixed. torchjd solves
the dual (weights w_i >= e_i of least |J^T w_i|) with quadprog. Of K tasks, k have a gradient in a step, and they weigh
k / K of what they would alone: the mean is over all tasks.
"""

from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, needs, weigh
from mmtrain.balance.plain import Plain


class UPGrad(Plain):
    """Weights of the mean of projected gradients.

    Args:
        gradients_of: parameters or features: which gradients are compared.

    Raises:
        ValueError: when quadprog is missing.
    """

    def __init__(self, *, gradients_of: str) -> None:
        super().__init__()
        # torchjd takes a second to import, and only these rules want it
        with needs("upgrad", "torchjd[quadprog-projector]"):
            from torchjd.aggregation import UPGradWeighting

            self._rule = UPGradWeighting()
        self._gradients = Gradients(of=gradients_of)

    def weights(self, look: Look) -> Tensor:
        """(K,), 1 / K or more each; a task without a gradient has 1 / K."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, lambda g: len(g) * self._rule(g), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
