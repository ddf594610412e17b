"""PCGrad: project a gradient that conflicts with another onto its normal plane (2001.06782, algorithm 1).

    for each i, for each j != i in a random order:   g_i' = g_i' - min(g_i'.g_j, 0) / |g_j|^2 g_j
    step = sum_i g_i'

Each g_i' is a linear combination of the gradients, so their sum gives one weight per gradient. Without conflicts all
weights are 1, as with balance=fixed. The order is drawn from the seed of the step and does not change the global random
state.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, weigh
from mmtrain.balance.plain import BaseBalance


class PCGrad(BaseBalance):
    """Weights of the sum of projected gradients, from torchjd.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
    """

    def __init__(self, *, gradients_of: GradientSource) -> None:
        super().__init__()
        # torchjd takes a second to import, and only a few rules need it
        from torchjd.aggregation import PCGradWeighting

        self._gradients = Gradients(of=gradients_of)
        self._rule = PCGradWeighting()

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,), each at least 1; a task without a gradient gets 1."""
        gramian = self._gradients.gramian(step)
        # seed the generator itself, because torch.manual_seed would also seed the GPUs
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(step.seed)
            return weigh(gramian, self._rule, otherwise=1.0)

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
