"""Distillation: a task of this run learns what the same task of a teacher says, with or without labels (1503.02531).

The teacher is the model of another run; it sees the batch that the student sees, augmented alike. It is no part of this
model: not of its parameters, its checkpoints or its averages, and is loaded anew by whoever builds the model.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from mmtrain.layers.pooling import MeanPool
from mmtrain.losses.distillation import feature_distance, soft_cross_entropy
from mmtrain.tasks.classification import Classification
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit


class Both(NamedTuple):
    """What student and teacher say of a view.

    Attributes:
        student: logits (B, C).
        teacher: logits (B, C).
        student_features: (B, D) in the teacher's width; None where features are not learned from.
        teacher_features: (B, D).
    """

    student: Tensor
    teacher: Tensor
    student_features: Tensor | None
    teacher_features: Tensor | None


class Distillation(nn.Module):
    """Logits, and if asked for features, of a teacher.

    Args:
        dims: width by what can be read: "fused" and each modality.
        teacher: the trained model, in evaluation mode.
        of: name of the task of classes that both models have.
        reads: what that task reads here: "fused" or a modality.
        temperature: softens both distributions.
        features: weight of the distance of pooled features, of what each model's task reads; 0 for none.
        weight: see `Task`.

    Raises:
        ValueError: when the teacher has no such task, or a number means nothing.
    """

    monitor = "agreement"
    targets: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        teacher: nn.Module,
        of: str,
        reads: str,
        temperature: float,
        features: float,
        weight: float,
    ) -> None:
        super().__init__()
        check_names(("reads", reads, dims))
        if temperature <= 0.0 or features < 0.0:
            raise ValueError(
                f"temperature = {temperature} and features = {features}; set temperature above 0, features to 0 or more"
            )
        tasks: Any = teacher.get_submodule("tasks")
        classes = [name for name, task in tasks.items() if isinstance(task, Classification)]
        if of not in classes:
            raise ValueError(f"of = {of}, but of classes the teacher has {', '.join(classes) or 'none'}; name one")
        self._teacher = (teacher,)  # not registered
        self.names: list[str] = tasks[of].names
        self.of = of
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.temperature = temperature
        self.features = features
        self.weight = weight
        self.pool = MeanPool()
        self.theirs = tasks[of].reads[0]
        self.map: nn.Module | None = None
        if features > 0.0:
            model: Any = teacher
            width = model.fusion.dim if self.theirs == "fused" else model.encoders[self.theirs].dim
            self.map = nn.Sequential(nn.LayerNorm(dims[reads]), nn.Linear(dims[reads], width))

    def forward(self, view: Any) -> Both:
        """Both models' logits of a view.

        Raises:
            ValueError: when this run has no such task, or one of other classes.
        """
        student = self._student(view)
        model: Any = self._teacher[0]
        with torch.no_grad():
            if next(model.parameters()).device != student.device:
                model.to(student.device)
            theirs = model.view(view.batch)
            said = theirs.predictions(self.of)
            pooled = None if self.map is None else self.pool(theirs.features(self.theirs))
        mine = None if self.map is None else self.map(self.pool(view.features(self.reads[0])))
        return Both(student, said, mine, pooled)

    def _student(self, view: Any) -> Tensor:
        tasks = view.model.tasks
        if self.of not in tasks:
            raise ValueError(
                f"distillation is of {self.of}, which this run does not train; set task=[{self.of},distillation]"
            )
        if list(tasks[self.of].names) != list(self.names):
            raise ValueError(
                f"{self.of} of the teacher has the classes {', '.join(self.names)}, here they are"
                f" {', '.join(tasks[self.of].names)}; train both on the same rows, or leave distillation out"
            )
        said = view.predictions(self.of)
        if not isinstance(said, Tensor):
            raise ValueError(f"{self.of} mixes pictures, which its teacher does not see; set its mixup and cutmix to 0")
        return said

    def _valid(self, batch: Batch) -> Tensor:
        """Rows of which both can read something."""
        model: Any = self._teacher[0]
        read = list(model.encoders) if self.theirs == "fused" else [self.theirs]
        return batch.has_any(self.needs) & batch.has_any(read)

    def count(self, batch: Batch) -> Tensor:
        """Rows of which both can read something."""
        return self._valid(batch).sum()

    def loss(self, predictions: Both, batch: Batch) -> tuple[Tensor, Tensor]:
        """The distance of distributions, and `features` times that of features: (sum, count)."""
        valid = self._valid(batch)
        total, count = soft_cross_entropy(predictions.student, predictions.teacher, valid, temperature=self.temperature)
        if predictions.student_features is not None and predictions.teacher_features is not None:
            distance, _ = feature_distance(predictions.student_features, predictions.teacher_features, valid)
            total = total + self.features * distance
        return total, count

    def metrics(self) -> MetricCollection:
        """How often both say the same class, and what the teacher says."""
        parts: dict[str, Metric | MetricCollection] = {
            "agreement": MeanMetric(nan_strategy="error"),
            "said": MulticlassConfusionMatrix(len(self.names)),
        }
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Both, batch: Batch) -> None:
        """Count the rows of which both can read something.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        valid = self._valid(batch)
        student, teacher = predictions.student[valid], predictions.teacher[valid]
        if not student.isfinite().all() or not teacher.isfinite().all():
            raise FloatingPointError(f"distillation of {self.of}: a logit is not finite")
        if len(student):
            mine, theirs = student.argmax(dim=1), teacher.argmax(dim=1)
            metrics["agreement"].update((mine == theirs).float())
            metrics["said"].update(mine, theirs)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always what the teacher says most often."""
        counts = values["said"].sum(dim=1).double()
        return {"agreement": float(counts.max() / counts.sum().clamp(min=1))}

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Both, batch: Batch) -> list[dict[str, Any]]:
        """Nothing to say that the task itself does not."""
        return [{} for _ in range(len(batch))]
