"""Distillation: a task of this run learns the predictions of a teacher's task, with or without labels (1503.02531).

The teacher is the model of another run. It gets the same augmented batch as the student. It is not part of this model's
parameters, checkpoints or weight averages. It is loaded each time the model is built.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from mmtrain.annotations import NonNegativeFloat, PositiveFloat
from mmtrain.layers.pooling import MeanPool
from mmtrain.losses.distillation import feature_distance, soft_cross_entropy
from mmtrain.tasks.classification import Classification
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, ReportItem, View


class StudentAndTeacher(NamedTuple):
    """Predictions of student and teacher for a view.

    Attributes:
        student: logits (B, C).
        teacher: logits (B, C).
        student_features: (B, D) in the teacher's width; None if features are not distilled.
        teacher_features: (B, D).
    """

    student: Tensor
    teacher: Tensor
    student_features: Tensor | None
    teacher_features: Tensor | None


class Distillation(nn.Module):
    """Distils the logits, and optionally the features, of a teacher.

    Args:
        dims: width by feature source: "fused" and each modality.
        teacher: the trained model, in evaluation mode.
        distilled_task: name of a classification task that both models have.
        input: features that this task reads here: "fused" or a modality.
        temperature: softmax temperature for both distributions.
        feature_weight: weight of the distance between pooled features, of the source that each model's task reads; 0
            for none.
        weight: see `Task`.

    Raises:
        ValueError: if the teacher has no such task, or for a number out of range.
    """

    monitor = "agreement"
    targets: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        teacher: nn.Module,
        distilled_task: str,
        input: str,
        temperature: PositiveFloat,
        feature_weight: NonNegativeFloat,
        weight: NonNegativeFloat,
    ) -> None:
        super().__init__()
        check_names(("input", input, dims))
        if temperature <= 0.0 or feature_weight < 0.0:
            raise ValueError(
                f"temperature = {temperature} and feature_weight = {feature_weight}; set temperature above 0, features"
                f" to 0 or more"
            )
        tasks: Any = teacher.get_submodule("tasks")
        classes = [name for name, task in tasks.items() if isinstance(task, Classification)]
        if distilled_task not in classes:
            raise ValueError(
                f"distilled_task = {distilled_task}, but the classification tasks of the teacher are"
                f" {', '.join(classes) or 'none'};"
                " set it to one of them"
            )
        self._teacher = (teacher,)  # not registered
        self.names: list[str] = tasks[distilled_task].names
        self.distilled_task = distilled_task
        self.reads = (input,)
        self.needs = () if input == "fused" else (input,)
        self.temperature = temperature
        self.feature_weight = feature_weight
        self.weight = weight
        self.pool = MeanPool()
        self.theirs = tasks[distilled_task].reads[0]
        self.map: nn.Module | None = None
        if feature_weight > 0.0:
            model: Any = teacher
            width = model.fusion.dim if self.theirs == "fused" else model.encoders[self.theirs].dim
            self.map = nn.Sequential(nn.LayerNorm(dims[input]), nn.Linear(dims[input], width))

    def forward(self, view: View) -> StudentAndTeacher:
        """Return both models' logits of a view.

        Raises:
            ValueError: if this run has no such task, or one with other classes.
        """
        student = self._student(view)
        model: Any = self._teacher[0]
        with torch.no_grad():
            if next(model.parameters()).device != student.device:
                model.to(student.device)
            theirs = model.view(view.batch)
            teacher_logits = theirs.predictions(self.distilled_task)
            pooled = None if self.map is None else self.pool(theirs.features(self.theirs))
        mine = None if self.map is None else self.map(self.pool(view.features(self.reads[0])))
        return StudentAndTeacher(student, teacher_logits, mine, pooled)

    def _student(self, view: View) -> Tensor:
        tasks = view.model.tasks
        if self.distilled_task not in tasks:
            raise ValueError(
                f"distillation needs the task {self.distilled_task}, which is missing here; set"
                f" task=[{self.distilled_task},distillation]"
            )
        if list(tasks[self.distilled_task].names) != list(self.names):
            raise ValueError(
                f"{self.distilled_task} of the teacher has the classes {', '.join(self.names)}, here they are"
                f" {', '.join(tasks[self.distilled_task].names)}; train both on the same rows, or remove distillation"
            )
        logits = view.predictions(self.distilled_task)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"{self.distilled_task} mixes images, but its teacher does not; set its mixup and cutmix to 0"
            )
        return logits

    def _valid(self, batch: Batch) -> Tensor:
        """Return rows with a modality that both models can read."""
        model: Any = self._teacher[0]
        read = list(model.encoders) if self.theirs == "fused" else [self.theirs]
        return batch.has_any(self.needs) & batch.has_any(read)

    def count(self, batch: Batch) -> Tensor:
        """Count the rows with a modality that both models can read."""
        return self._valid(batch).sum()

    def loss(self, predictions: StudentAndTeacher, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the distance of distributions, plus `features` times that of features: (sum, count)."""
        valid = self._valid(batch)
        total, count = soft_cross_entropy(predictions.student, predictions.teacher, valid, temperature=self.temperature)
        if predictions.student_features is not None and predictions.teacher_features is not None:
            distance, _ = feature_distance(predictions.student_features, predictions.teacher_features, valid)
            total = total + self.feature_weight * distance
        return total, count

    def metrics(self) -> MetricCollection:
        """Return the fraction of equal predictions, and their confusion matrix."""
        parts: dict[str, Metric | MetricCollection] = {
            "agreement": MeanMetric(nan_strategy="error"),
            "said": MulticlassConfusionMatrix(len(self.names)),
        }
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: StudentAndTeacher, batch: Batch) -> None:
        """Add the rows with a modality that both models can read.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        student, teacher = predictions.student[valid], predictions.teacher[valid]
        if not student.isfinite().all() or not teacher.isfinite().all():
            raise FloatingPointError(f"distillation of {self.distilled_task}: a logit is not finite")
        if len(student):
            mine, theirs = student.argmax(dim=1), teacher.argmax(dim=1)
            metrics["agreement"].update((mine == theirs).float())
            metrics["said"].update(mine, theirs)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the teacher's most frequent class."""
        counts = values["said"].sum(dim=1).double()
        return {"agreement": float(counts.max() / counts.sum().clamp(min=1))}

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return []: there is nothing to draw."""
        return []

    def rows(self, predictions: StudentAndTeacher, batch: Batch) -> list[dict[str, Any]]:
        """Return an empty dict per row: the student task has the predictions."""
        return [{} for _ in range(len(batch))]
