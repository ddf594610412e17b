"""Default implementations of `Balance` methods. A method's own file shows only what differs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmtrain.balance.balance import TaskGradients


class BaseBalance(nn.Module):
    """A balancing method without parameters, state or additional values to log."""

    def __init__(self) -> None:
        # nn.Module's own __init__ would accept any argument
        super().__init__()

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Return None: there are no parameters."""
        return None

    def after_step(self, step: TaskGradients) -> None:
        """Do nothing."""

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Do nothing."""

    def values(self) -> dict[str, float]:
        """Return {}: log only the weights."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """Return {}: there is no state."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Do nothing."""
