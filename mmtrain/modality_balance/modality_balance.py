"""What the rest of the house asks of a balance of modalities. It is an `nn.Module` with these members."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from mmtrain.types import Batch


class ModalityBalance(Protocol):
    """It looks at each micro-batch, may change the tasks' losses, and may change the encoders' gradients."""

    def losses(self, view: Any, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tasks' sums over the rows of a micro-batch, as they are to be minimised.

        Args:
            view: of the micro-batch, a `mmtrain.model.View`.
            sums: by task, a scalar.
        """
        ...

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Change the gradients of a whole step, summed over micro-batches and ranks.

        Args:
            encoders: by modality.
            seed: of every draw of the step, the same on all ranks.
        """
        ...

    def validate(self, view: Any) -> None:
        """Look at a batch of the validation split."""
        ...

    def end_validation(self) -> None:
        """All of the validation split has been seen."""
        ...

    def values(self) -> dict[str, float]:
        """What to log."""
        ...

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs beside parameters: plain numbers and lists."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        ...


@runtime_checkable
class Judges(Protocol):
    """A task that can judge one modality as it judges all together, and say how sure it is of the truth."""

    reads: tuple[str, ...]
    needs: tuple[str, ...]

    def new_head(self, dim: int) -> nn.Module:
        """Another head of the same kind: `Features` of that width -> predictions."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over the rows that can be learned from."""
        ...

    def confidence(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of the probability of the true answer over those rows."""
        ...


def judging(tasks: Mapping[str, Any], modalities: list[str]) -> dict[str, Judges]:
    """The tasks that judge what is fused of all modalities.

    Raises:
        ValueError: when there is none, or one modality alone.
    """
    found = {
        name: task
        for name, task in tasks.items()
        if isinstance(task, Judges) and "fused" in task.reads and not task.needs
    }
    if not found:
        raise ValueError(
            f"none of the tasks {', '.join(tasks)} judges fused features, so that nothing says how each modality"
            " fares; add task=[classification], or set modality_balance=none"
        )
    if len(modalities) < 2:
        raise ValueError(f"there is only {', '.join(modalities)} to balance; set modality_balance=none")
    return found
