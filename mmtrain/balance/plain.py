"""The members of `Balance` that most rules leave empty: here, so that each rule's file shows what it does alone."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmtrain.balance.balance import Look


class Plain(nn.Module):
    """Nothing to learn, to keep or to log beside the weights."""

    def __init__(self) -> None:
        # not that of nn.Module, which takes any argument
        super().__init__()

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Nothing to learn."""
        return None

    def after_step(self, look: Look) -> None:
        """Nothing to learn."""

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Nothing to learn."""

    def values(self) -> dict[str, float]:
        """Nothing beside the weights."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to take."""
