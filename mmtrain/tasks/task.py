"""What the rest of the house asks of a task. A task is an `nn.Module` with these members; nothing is inherited."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mmtrain.types import Batch, Exhibit


class Task(Protocol):
    """A head, a loss, metrics.

    Attributes:
        reads: what the head reads: "fused" or names of modalities. Parts that no task reads are not built.
        needs: modalities that a row must have to count; () when any will do.
        targets: names of the targets that it learns from; () when it needs no labels.
        weight: the task's weight in the step, read by `balance`.
        monitor: the metric that tells a good checkpoint, higher is better.
    """

    reads: tuple[str, ...]
    needs: tuple[str, ...]
    targets: tuple[str, ...]
    weight: float
    monitor: str

    def __call__(self, view: Any) -> Any:
        """Predictions for a `mmtrain.model.View`."""
        ...

    def count(self, batch: Batch) -> Tensor:
        """How many items of the batch the loss will count: scalar int64, from masks alone, before any network runs."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over the rows that can be learned from."""
        ...

    def metrics(self) -> Metric | MetricCollection:
        """A fresh metric whose `compute` gives a dict; its scalars are logged."""
        ...

    def update(self, metrics: Any, predictions: Any, batch: Batch) -> None:
        """Show one batch to the metrics."""
        ...

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """What guessing would score, by metric name, given the computed values."""
        ...

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> Sequence[Exhibit]:
        """What the report can draw of the computed values; `name` gives the id of a row."""
        ...

    def rows(self, predictions: Any, batch: Batch) -> list[dict[str, Any]]:
        """For `mode=predict`: one small dict a row, empty where the task has nothing to say."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A task that keeps something from step to step beside its parameters."""

    def end_step(self) -> None:
        """The optimizer step was taken."""
        ...

    def drop_step(self) -> None:
        """The optimizer step was passed over: nothing of it is kept."""
        ...

    def memory(self) -> dict[str, Tensor]:
        """What a run that goes on needs."""
        ...

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take what `memory` gave."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A task whose loss compares rows with one another: its predictions are vectors by modality.

    Of a batch its loss reads presence and keys alone.
    """

    def compares_with(self) -> Sequence[Tensor]:
        """The parameters that the loss reads beside the predictions."""
        ...

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Task`."""
        ...


@runtime_checkable
class Pairs(Protocol):
    """A task that pairs a row with another one of its step.

    Attributes:
        negatives_from: name of the task whose vectors choose it, which need not be there.
    """

    negatives_from: str

    def pairs_within_step(self) -> bool:
        """Whether the other row may be in another micro-batch or on another rank."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A task that does more in test than in validation, because it is slow."""

    def start_evaluation(self, stage: str) -> None:
        """What comes is val or test."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A task that has more to log of a training step than its loss."""

    def told(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name the sum and the count of what this rank's micro-batches said since it was last asked.

        The names are always the same, on every rank.
        """
        ...


@runtime_checkable
class Continues(Protocol):
    """A task around one that writes, which goes on from the weights of another one.

    Attributes:
        policy: the task that writes.
        continues: name of the task whose weights, in the checkpoint of `init_from`, fit those of the policy.
    """

    policy: Any
    continues: str
