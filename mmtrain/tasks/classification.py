"""Classification: a linear head, with cross entropy or focal loss over the labelled rows.

AUROC (one class against the others) and average precision are means over the classes that occur in the evaluated rows.
AUROC is omitted if only one class occurs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from mmtrain.annotations import Flattened, Fraction, NonNegativeFloat
from mmtrain.layers.mixing import mix_pictures
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.losses.focal import focal
from mmtrain.metrics.calibration import CalibrationError
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.score_curves import ScoreCurves
from mmtrain.tasks.names import check_names
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
from mmtrain.types import Batch, ClassTarget, Confusion, Padded, ReportItem, View

Loss = Literal["cross_entropy", "focal"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
TOP = 5


class Mixed(NamedTuple):
    """Predictions for mixed images: logits (B, C), and the mixed targets (B, C)."""

    logits: Tensor
    truth: Tensor


class Classification(SupervisedTask):
    """Single-label classification.

    Args:
        head: features and target of the head.
        label_smoothing: fraction of the target that is spread over all classes.
        loss: cross_entropy or focal.
        focal_gamma: gamma of the focal loss; larger values reduce the loss of confident predictions more.
        class_weights: factor of the loss per class: None; "balanced" for weights inversely proportional to the training
            rows of a class, with mean 1 over those rows; or a list in the order of the classes.
        mixup: alpha of mixup in training (1710.09412), for a task that reads only images; 0 disables it.
        cutmix: alpha of CutMix (1905.04899), for the same tasks. If both are on, each batch uses one of them.

    Raises:
        ValueError: for an unknown target, feature source or loss, or if the weights do not fit the classes.
    """

    monitor = "accuracy"
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        head: Flattened[HeadSpec],
        label_smoothing: Fraction,
        loss: Loss,
        focal_gamma: NonNegativeFloat,
        class_weights: Literal["balanced"] | Sequence[NonNegativeFloat] | None,
        mixup: NonNegativeFloat,
        cutmix: NonNegativeFloat,
    ) -> None:
        check_names(("loss", loss, LOSSES))
        names = head.known.names
        if len(names) < 2:
            raise ValueError(
                f"target = {head.target} has only the class {', '.join(names) or 'none'} in training;"
                " add rows of another class, or remove the task"
            )
        if mixup < 0.0 or cutmix < 0.0:
            raise ValueError(f"mixup = {mixup} and cutmix = {cutmix}; set them to 0 or more")
        if (mixup or cutmix) and head.reads == "fused":
            raise ValueError(
                "mixup and cutmix mix images, but the text and the rest of a sample cannot be mixed with them;"
                " set input to image, or both to 0"
            )
        if focal_gamma < 0.0:
            raise ValueError(f"focal_gamma = {focal_gamma} is below 0; set it to 2.0, for example")
        super().__init__(head, len(names))
        self.mixup, self.cutmix = mixup, cutmix
        self.label_smoothing = label_smoothing
        self.kind = loss
        self.focal_gamma = focal_gamma
        self.names = names
        weights = _weights(class_weights, head.known)
        self.register_buffer("class_weights", weights, persistent=False)  # follows from the data or the configuration

    def forward(self, view: View) -> "Tensor | Mixed":
        """Return logits (B, C) for a view; in training with mixup or CutMix, those of mixed images."""
        if self.training and (self.mixup or self.cutmix):
            return self._mixed(view)
        return super().forward(view)

    def _mixed(self, view: View) -> "Mixed":
        (modality,) = self.reads
        values, mask = view.batch.inputs[modality]
        if mask is not None or not values.is_floating_point():
            raise ValueError(f"mixup and cutmix mix images, but {modality} is not an image; set both to 0")
        mixture = mix_pictures(values, self._valid(view.batch), mixup=self.mixup, cutmix=self.cutmix)
        logits = self.head(view.with_inputs({modality: Padded(mixture.values, None)}).features(modality))
        truth = F.one_hot(view.batch.targets[self.targets[0]].clamp(0, len(self.names) - 1), len(self.names)).float()
        return Mixed(logits, mixture.share * truth + (1 - mixture.share) * truth[mixture.partner])

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the probability of the true class, summed over the labelled rows, and their number."""
        valid = self._valid(batch)
        truth = batch.targets[self.targets[0]].masked_fill(~valid, 0).unsqueeze(1)
        probability = predictions.float().softmax(dim=1).gather(1, truth).squeeze(1)
        return probability.masked_fill(~valid, 0.0).sum(), valid.sum()

    def loss(self, predictions: "Tensor | Mixed", batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of logits (B, C): (sum of weighted losses, number of rows)."""
        truth, valid = batch.targets[self.targets[0]], self._valid(batch)
        if isinstance(predictions, Mixed):
            predictions, truth = predictions
        smoothing, weights = self.label_smoothing, self.class_weights
        if self.kind == "focal":
            gamma = self.focal_gamma
            return focal(predictions, truth, valid, gamma=gamma, label_smoothing=smoothing, weights=weights)
        return cross_entropy(predictions, truth, valid, label_smoothing=smoothing, weights=weights)

    def metrics(self) -> MetricCollection:
        """Return accuracies, macro F1, areas, calibration error, and the confusion matrix (C, C) with true rows."""
        num = len(self.names)
        scores: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(num, average="micro"),
            "macro_f1": MulticlassF1Score(num, average="macro"),
            "curves": ScoreCurves(num_classes=num),
            "calibration_error": CalibrationError(),
            "confusion": MulticlassConfusionMatrix(num),
        }
        if num > TOP:
            scores[f"top{TOP}_accuracy"] = MulticlassAccuracy(num, average="micro", top_k=TOP)
        return MetricCollection(scores, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Tensor, batch: Batch) -> None:
        """Add the labelled rows.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        logits = predictions[valid].float()
        if not logits.isfinite().all():
            raise FloatingPointError(f"classification of {self.targets[0]}: a logit is not finite")
        if len(logits):
            # float64 separates logits that float32 would round to the same probability
            metrics.update(logits.double().softmax(dim=1), batch.targets[self.targets[0]][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the most frequent class (or five) of the evaluated rows; areas use a random order."""
        counts = values["confusion"].sum(dim=1).double()
        share = float(counts.max() / counts.sum().clamp(min=1))
        classes = max(int((counts > 0).sum()), 1)
        chance = {"accuracy": share, "macro_f1": 2 * share / (1 + share) / classes}
        if len(self.names) > TOP:
            chance[f"top{TOP}_accuracy"] = float(counts.topk(TOP).values.sum() / counts.sum().clamp(min=1))
        return chance | chance_scores(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return the confusion matrix."""
        return [Confusion(task=self.targets[0], names=list(self.names), counts=values["confusion"].tolist())]

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the most likely class and its probability, for rows with a modality to read."""
        probability, best = predictions.float().softmax(dim=1).max(dim=1)
        columns = (best.tolist(), probability.tolist(), batch.has_any(self.needs).tolist())
        return [
            {self.targets[0]: self.names[c], "probability": round(p, 6)} if readable else {}
            for c, p, readable in zip(*columns, strict=True)
        ]


def _weights(given: str | Sequence[float] | None, known: ClassTarget) -> Tensor | None:
    """Return the factor of the loss per class, (C,).

    Raises:
        ValueError: for another word, a wrong number of weights, or weights that are negative or not finite.
    """
    if given is None:
        return None
    if given == "balanced":
        counts = torch.tensor(known.counts, dtype=torch.float32).clamp(min=1.0)
        return counts.sum() / (len(counts) * counts)
    if isinstance(given, str):
        raise ValueError(f"class_weights = {given}; set it to null, balanced or a list of {len(known.names)} numbers")
    if len(given) != len(known.names):
        raise ValueError(
            f"class_weights has {len(given)} numbers, but there are {len(known.names)} classes;"
            f" give one for each of {', '.join(known.names)}, in that order"
        )
    weights = torch.tensor(given, dtype=torch.float32)
    if not (weights.isfinite() & (weights >= 0)).all() or not weights.any():
        raise ValueError(f"class_weights = {list(given)}; set them to numbers from 0, not all 0")
    return weights
