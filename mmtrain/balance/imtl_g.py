"""IMTL-G: the step has the same length along every task's gradient (Towards Impartial Multi-task Learning, ICLR 2021).

    d.g_1 / |g_1| = ... = d.g_K / |g_K|,   d = sum_k w_k g_k,   sum_k w_k = 1
    w_k = v_k / n_k / sum_i (v_i / n_i),   v = C^+ 1,   C the cosines, n_k = |g_k|

Weights sum to 1 and not to K, so that a step is some K times shorter than that of balance=fixed; they can be negative,
and large where gradients are nearly opposite, as in the paper. Where they are opposite, all are 0.

v is torchjd's solution for gradients of length 1, with a pseudo-inverse for gradients that depend on each other. For
independent gradients that is its solution for the gradients themselves, but lengths have no part in the rounding.
"""

import torch
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
        return weigh(gramian, self._impartial, otherwise=1 / len(gramian))

    def _impartial(self, gramian: Tensor) -> Tensor:
        norms = gramian.diagonal().sqrt()
        weights = self._rule(gramian / torch.outer(norms, norms)) / norms
        total = weights.sum()
        return weights / total if total != 0 else torch.zeros_like(weights)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
