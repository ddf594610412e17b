"""PCGrad: a gradient that conflicts with another is projected onto its normal plane (2001.06782, algorithm 1).

    for each i, for each j != i in a random order:   g_i' = g_i' - min(g_i'.g_j, 0) / |g_j|^2 g_j
    step = sum_i g_i'

Each g_i' is a combination of the gradients, so that their sum is a weight for each. Without a conflict all weights are
1, as with balance=fixed. The order is drawn from the seed of the step and leaves the global random state as it was.
"""

import torch
from torch import Tensor

from mmtrain.balance.balance import Look
from mmtrain.balance.gradients import Gradients, weigh
from mmtrain.balance.plain import Plain


class PCGrad(Plain):
    """Weights of the sum of projected gradients, by torchjd.

    Args:
        gradients_of: parameters or features: which gradients are compared.
    """

    def __init__(self, *, gradients_of: str) -> None:
        super().__init__()
        # torchjd takes a second to import, and only these rules want it
        from torchjd.aggregation import PCGradWeighting

        self._gradients = Gradients(of=gradients_of)
        self._rule = PCGradWeighting()

    def weights(self, look: Look) -> Tensor:
        """(K,), 1 or more each; a task without a gradient has 1."""
        gramian = self._gradients.gramian(look)
        # the generator itself and not torch.manual_seed, which would seed the GPUs as well
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(look.seed)
            return weigh(gramian, self._rule, otherwise=1.0)

    def values(self) -> dict[str, float]:
        """Lengths and cosines of the gradients of the last step."""
        return self._gradients.seen
