"""What the rest of the house asks of a balance: a weight for each task's loss, step by step.

Every rule here ends in weights: the step is the gradient of the weighted sum of the tasks' mean losses, so that
accumulation, clipping, mixed precision and several processes need to know nothing of the rule. What a rule may ask of a
step to come is in `Look`; it is computed only if it is asked for, over all micro-batches and ranks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class Look(Protocol):
    """A look at the step to come, the same on every rank.

    Attributes:
        names: of the tasks, in the order of every vector here.
        seed: of every draw for this step.
    """

    names: Sequence[str]
    seed: int

    def losses(self) -> Tensor:
        """(K,), float64: each task's mean loss times its own weight."""
        ...

    def gramian(self, on: str) -> Tensor:
        """(K, K), float64: inner products of the gradients of those losses.

        Args:
            on: parameters: of encoders and fusion; features: what the encoders give, which is cheaper.
        """
        ...


class Balance(Protocol):
    """It is an `nn.Module`; its own parameters, if it has any, are trained with the others."""

    def weights(self, look: Look) -> Tensor:
        """(K,), float64, without a graph: what each loss of the step is multiplied by."""
        ...

    def own_loss(self, losses: Tensor) -> Tensor | None:
        """What the balance's own parameters learn from in this step; None where there are none.

        Args:
            losses: (K,), as those of `Look`, without a graph.
        """
        ...

    def after_step(self, look: Look) -> None:
        """The step was taken; asked now, `look.losses` are those of the same samples with the new weights."""
        ...

    def end_epoch(self, losses: Mapping[str, float]) -> None:
        """An epoch of training has ended.

        Args:
            losses: by task, the mean over its steps, times the task's own weight.
        """
        ...

    def values(self) -> dict[str, float]:
        """What to log beside the weights."""
        ...

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs beside parameters: plain numbers and lists."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        ...
