"""The interface of modality balancing. An implementation is an `nn.Module` with these methods."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from mmtrain.types import Batch, View


class ModalityBalance(Protocol):
    """Sees each micro-batch; may change the tasks' losses and the encoders' gradients."""

    def losses(self, view: View, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tasks' loss sums over the rows of a micro-batch, as they are to be minimized.

        Args:
            view: view of the micro-batch, a `View`.
            sums: scalar by task.
        """
        ...

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Change the gradients of a complete step, summed over micro-batches and ranks.

        Args:
            encoders: by modality.
            seed: seed for random draws in the step, equal on all ranks.
        """
        ...

    def validate(self, view: View) -> None:
        """Process a batch of the validation split."""
        ...

    def end_validation(self) -> None:
        """Called after the last batch of the validation split."""
        ...

    def values(self) -> dict[str, float]:
        """Return values to log."""
        ...

    def extra_state(self) -> dict[str, Any]:
        """Return the state for a resumed run, without parameters: plain numbers and lists."""
        ...

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        ...


@runtime_checkable
class UnimodalTask(Protocol):
    """A task that can predict from one modality as from the fused features, and can return its confidence."""

    reads: tuple[str, ...]
    needs: tuple[str, ...]

    def new_head(self, dim: int) -> nn.Module:
        """Build another head of the same kind, from `Features` of this width to predictions."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (sum, count) over the rows with a target."""
        ...

    def confidence(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (sum, count) of the probability of the true answer over those rows."""
        ...


def unimodal_tasks(tasks: Mapping[str, Any], modalities: list[str]) -> dict[str, UnimodalTask]:
    """Return the tasks that predict from features fused of all modalities.

    Raises:
        ValueError: if there is no such task, or only one modality.
    """
    results = {
        name: task
        for name, task in tasks.items()
        if isinstance(task, UnimodalTask) and "fused" in task.reads and not task.needs
    }
    if not results:
        raise ValueError(
            f"none of the tasks {', '.join(tasks)} predicts from fused features, so modalities cannot be"
            " compared; add task=[classification], or set modality_balance=none"
        )
    if len(modalities) < 2:
        raise ValueError(f"{', '.join(modalities)} is the only modality; set modality_balance=none")
    return results
