"""IMTL-G: the step has the same length along every task's gradient (Towards Impartial Multi-task Learning, ICLR 2021).

    d.g_1 / |g_1| = ... = d.g_K / |g_K|,   d = sum_k w_k g_k,   sum_k w_k = 1
    w = G^+ n / sum(G^+ n),   G the Gramian, n_k = |g_k|

Weights sum to 1 and not to K, so that a step is some K times shorter than that of balance=fixed; they can be negative,
and large where gradients are nearly opposite, as in the paper. Where they are opposite, all are 0. The solution is
torchjd's, with a pseudo-inverse for gradients that depend on each other.
"""

from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, weigh
from mmtrain.balance.plain import Plain


class IMTLG(Plain):
    """Weights of the impartial step.

    Args:
        gradients_of: parameters or features: which gradients are compared.
    """

    def __init__(self, *, gradients_of: str) -> None:
        super().__init__()
        # torchjd takes a second to import, and only these rules want it
        from torchjd.aggregation import IMTLGWeighting

        self._gradients = Gradients(of=gradients_of)
        self._rule = IMTLGWeighting()

    def weights(self, look: Look) -> Tensor:
        """(K,), of sum 1; a task without a gradient has 1 / K, and takes nothing from the others."""
        gramian = self._gradients.gramian(look)
        return weigh(gramian, self._rule, otherwise=1 / len(gramian))

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
