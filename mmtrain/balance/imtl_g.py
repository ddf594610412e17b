"""IMTL-G: equal projections of the step on all gradient directions (Towards Impartial Multi-task Learning, ICLR 2021).

    d.g_1 / |g_1| = ... = d.g_K / |g_K|,   d = sum_k w_k g_k,   sum_k w_k = 1
    w_k = v_k / n_k / sum_i (v_i / n_i),   v = C^+ 1,   C the cosines, n_k = |g_k|

Weights sum to 1, not to K, so a step is about K times shorter than with balance=fixed. As in the paper, they can be
negative, and large if gradients are nearly opposite. If gradients are exactly opposite, all weights are 0.

v is torchjd's solution for gradients of length 1, with a pseudo-inverse for linearly dependent gradients. For
independent gradients it equals torchjd's solution for the original gradients, but lengths do not affect rounding.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, weigh
from mmtrain.balance.plain import BaseBalance


class IMTLG(BaseBalance):
    """Weights of the impartial step.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
    """

    def __init__(self, *, gradients_of: GradientSource) -> None:
        super().__init__()
        # torchjd takes a second to import, and only a few rules need it
        from torchjd.aggregation import IMTLGWeighting

        self._gradients = Gradients(of=gradients_of)
        self._rule = IMTLGWeighting()

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,). They sum to 1 over tasks with a gradient; any other task gets 1 / K in addition."""
        gramian = self._gradients.gramian(step)
        return weigh(gramian, self._impartial, otherwise=1 / len(gramian))

    def _impartial(self, gramian: Tensor) -> Tensor:
        norms = gramian.diagonal().sqrt()
        weights = self._rule(gramian / torch.outer(norms, norms)) / norms
        total = weights.sum()
        return weights / total if total != 0 else torch.zeros_like(weights)

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
