"""The interface of loss balancing: a weight for each task's loss, recomputed in every step.

Every method here results in weights: the step is the gradient of the weighted sum of the tasks' mean losses. So
gradient accumulation, clipping, mixed precision and distributed training are independent of the method. What a method
may need of the coming step is `TaskGradients`. It is computed only on request, over all micro-batches and ranks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class TaskGradients(Protocol):
    """Losses and gradients of the coming step, equal on every rank.

    Attributes:
        names: task names, in the order of every vector here.
        seed: seed for random draws in this step.
    """

    names: Sequence[str]
    seed: int

    def losses(self) -> Tensor:
        """Return (K,), float64: each task's mean loss times its own weight."""
        ...

    def gramian(self, on: str) -> Tensor:
        """Return (K, K), float64: inner products of the gradients of those losses.

        Args:
            on: "parameters" of encoders and fusion, or "features", the outputs of the encoders, which is cheaper.
        """
        ...


class Balance(Protocol):
    """A balancing method. It is an `nn.Module`; its parameters, if any, are trained with the others."""

    def weights(self, step: TaskGradients) -> Tensor:
        """Return (K,), float64, without graph: the factor of each loss in this step."""
        ...

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """Return the loss of the method's own parameters in this step; None if there are none.

        Args:
            losses: (K,), as in `TaskGradients`, without graph.
        """
        ...

    def after_step(self, step: TaskGradients) -> None:
        """Called after the optimizer step. `step.losses` now returns the losses of the same samples, new weights."""
        ...

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """Called after each training epoch.

        Args:
            losses: by task, the mean over the steps of the epoch, times the task's own weight.
        """
        ...

    def values(self) -> dict[str, float]:
        """Return values to log in addition to the weights."""
        ...

    def extra_state(self) -> dict[str, Any]:
        """Return the state for a resumed run, without parameters: plain numbers and lists."""
        ...

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        ...
