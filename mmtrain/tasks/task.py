"""The interface of tasks. A task is an `nn.Module` with these members; there is no base class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mmtrain.types import Batch, ReportItem, View


class Task(Protocol):
    """A head, a loss and metrics.

    Attributes:
        reads: features that the head reads: "fused" or names of modalities. Parts that no task reads are not built.
        needs: modalities that a row must have to count; () if any modality is sufficient.
        targets: names of the targets that it is trained on; () if it needs no labels.
        weight: the task's weight in the step, used by `balance`.
        monitor: the metric that selects checkpoints, higher is better.
    """

    reads: tuple[str, ...]
    needs: tuple[str, ...]
    targets: tuple[str, ...]
    weight: float
    monitor: str

    def __call__(self, view: View) -> Any:
        """Return predictions for a `View`."""
        ...

    def count(self, batch: Batch) -> Tensor:
        """Count the items of the batch in the loss: scalar int64, from masks only, before any forward pass."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (sum, count) over the rows with a target."""
        ...

    def metrics(self) -> Metric | MetricCollection:
        """Return a new metric whose `compute` returns a dict; its scalars are logged."""
        ...

    def update(self, metrics: Any, predictions: Any, batch: Batch) -> None:
        """Add one batch to the metrics."""
        ...

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the scores of guessing, by metric name, given the computed values."""
        ...

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> Sequence[ReportItem]:
        """Return report items for the computed values; `name` returns the id of a row."""
        ...

    def rows(self, predictions: Any, batch: Batch) -> list[dict[str, Any]]:
        """Return one small dict per row for `mode=predict`, empty if there is no prediction."""
        ...


@runtime_checkable
class SupportsExtraState(Protocol):
    """A task that keeps state between steps in addition to its parameters."""

    def end_step(self) -> None:
        """Called after an optimizer step."""
        ...

    def drop_step(self) -> None:
        """Called after a skipped optimizer step; discards its state."""
        ...

    def extra_state(self) -> dict[str, Tensor]:
        """Return the state for a resumed run."""
        ...

    def load_extra_state(self, memory: Mapping[str, Tensor]) -> None:
        """Restore the result of `extra_state`."""
        ...


@runtime_checkable
class SupportsGradCache(Protocol):
    """A task whose loss compares rows with each other. Its predictions are vectors by modality.

    Its loss uses only presence and keys of a batch.
    """

    def loss_parameters(self) -> Sequence[Tensor]:
        """Return the parameters that the loss uses in addition to the predictions."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Task`."""
        ...


@runtime_checkable
class SamplesNegatives(Protocol):
    """A task that pairs a row with another row of its step.

    Attributes:
        hard_negatives_from: name of the task whose vectors select that row; the task may be absent.
    """

    hard_negatives_from: str

    def negatives_from_global_batch(self) -> bool:
        """Return whether the other row may be in another micro-batch or on another rank."""
        ...


@runtime_checkable
class HandlesEvaluationStart(Protocol):
    """A task that does more work in test than in validation, because the work is slow."""

    def on_evaluation_start(self, stage: str) -> None:
        """Called before val or test."""
        ...


@runtime_checkable
class LogsStepMetrics(Protocol):
    """A task that logs more per training step than its loss."""

    def step_metrics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return by name the sum and count over this rank's micro-batches since the last call.

        The names are always the same, on every rank.
        """
        ...


@runtime_checkable
class InitializesPolicy(Protocol):
    """A task around a generation task that is initialized from the weights of another task.

    Attributes:
        policy: the generation task.
        init_policy_from: name of the task in the checkpoint of `init_from` whose weights initialize the policy.
    """

    policy: Any
    init_policy_from: str
