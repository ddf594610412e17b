"""Fixed weights: the sum of weight times loss."""

from collections.abc import Mapping

from torch import Tensor, nn


class Fixed(nn.Module):
    """Each task counts with its own weight.

    Args:
        weights: by task name.
    """

    def __init__(self, *, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar from the scalar loss of each task."""
        terms = [self.weights[name] * loss for name, loss in losses.items()]
        return sum(terms[1:], terms[0])
