"""CAGrad: near the mean gradient, the step that helps the worst task most (2110.14048).

    max over d of min_k g_k.d   with |d - g_0| <= c |g_0|,   g_0 = mean_k g_k
    d = g_0 + c |g_0| / |g_w| g_w,   w = argmin g_w.g_0 + c |g_0| |g_w|   over w_k >= 0, sum_k w_k = 1

c = 0 is the mean, and a large c nears MGDA in direction. Weights sum to 1 plus a part that grows with c: mean-type, so
that a step is some K times shorter than that of balance=fixed. Where some g_w is 0, no step helps all, and all weights
are 0. torchjd solves it with cvxpy. Of K tasks, k have a gradient in a step, and they weigh k / K of what they would
alone: the mean is over all tasks.
"""

from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, needs, weigh
from mmtrain.balance.plain import Plain


class CAGrad(Plain):
    """Weights of the conflict-averse step.

    Args:
        gradients_of: parameters or features: which gradients are compared.
        c: how far from the mean gradient, of its length.

    Raises:
        ValueError: when `c` is negative, or cvxpy is missing.
    """

    def __init__(self, *, gradients_of: str, c: float) -> None:
        super().__init__()
        if c < 0:
            raise ValueError(f"balance.c = {c}; set it to 0 or more")
        # torchjd takes a second to import, and only these rules want it
        with needs("cagrad", "torchjd[cagrad]"):
            from torchjd.aggregation import CAGradWeighting

            self._rule = CAGradWeighting(c=c)
        self._gradients = Gradients(of=gradients_of)

    def weights(self, look: Look) -> Tensor:
        """(K,); a task without a gradient has 1 / K."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, lambda g: len(g) * self._rule(g), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
