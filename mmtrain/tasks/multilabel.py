"""Multi-label classification: a linear head, binary cross entropy over the labelled rows.

A class is predicted if its probability is above 0.5. Scores are means over classes. Mean average precision is over the
classes that occur in the evaluated rows (0 if none does). F1 is over all classes, and 0 for a class that neither occurs
nor is predicted.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelExactMatch, MultilabelF1Score

from mmtrain.annotations import Flattened
from mmtrain.losses.binary_cross_entropy import binary_cross_entropy
from mmtrain.metrics.chance import CHANCE_METRICS, chance_scores
from mmtrain.metrics.score_curves import ScoreCurves
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
from mmtrain.types import Batch, MultiLabelTarget


class MultiLabel(SupervisedTask):
    """Multi-label classification.

    Args:
        head: features and target of the head.
        positive_weights: None, or "balanced": the factor of a class's positives is the ratio of negatives to positives
            in training.

    Raises:
        ValueError: for an unknown target or feature source.
    """

    monitor = "mean_average_precision"
    positive_weights: Tensor | None
    usual: Tensor

    def __init__(self, *, head: Flattened[HeadSpec], positive_weights: Literal["balanced"] | None) -> None:
        known = head.known
        if not isinstance(known, MultiLabelTarget) or not known.names:
            raise ValueError(
                f"target = {head.target} has no lists of classes; make it one that has, with"
                f" target@data.targets.{head.target}=multilabel, or set another target"
            )
        if positive_weights not in (None, "balanced"):
            raise ValueError(f"positive_weights = {positive_weights}; set it to balanced or null")
        head.refuse_distributions("assumes one class per row, but multilabel has several")
        super().__init__(head, len(known.names))
        self.names = known.names
        counts = torch.tensor(known.counts, dtype=torch.float32)
        num_negatives = (known.num_rows - counts).clamp(min=1.0)  # otherwise a class of every row would have weight 0
        # follow from the data, so not saved in checkpoints
        self.register_buffer("positive_weights", num_negatives / counts if positive_weights else None, persistent=False)
        self.register_buffer("usual", counts > known.num_rows / 2, persistent=False)

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the class mean of the probability of the truth, summed over the labelled rows, and their number."""
        valid = self._valid(batch)
        truth = batch.targets[self.targets[0]]
        probability = (predictions.float() * (2.0 * truth - 1.0)).sigmoid().mean(dim=1)
        return probability.masked_fill(~valid, 0.0).sum(), valid.sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the binary cross entropy of logits (B, C), its mean over classes: (sum, count)."""
        truth = batch.targets[self.targets[0]]
        return binary_cross_entropy(predictions, truth, self._valid(batch), positive_weights=self.positive_weights)

    def metrics(self) -> MetricCollection:
        """Return mAP, AUROC, macro and micro F1 and exact match; the last three also for the chance level."""
        num = len(self.names)
        scores: dict[str, Metric | MetricCollection] = {"curves": ScoreCurves(num_classes=num)}
        for kind in ("", CHANCE_METRICS):
            scores[f"macro_f1{kind}"] = MultilabelF1Score(num, average="macro")
            scores[f"micro_f1{kind}"] = MultilabelF1Score(num, average="micro")
            scores[f"exact_match{kind}"] = MultilabelExactMatch(num)
        return MetricCollection(scores, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Tensor, batch: Batch) -> None:
        """Add the labelled rows.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        logits = predictions[valid].double()
        if not logits.isfinite().all():
            raise FloatingPointError(f"multilabel of {self.targets[0]}: a logit is not finite")
        if not len(logits):
            return
        truth = batch.targets[self.targets[0]][valid].long()
        probability, guess = logits.sigmoid(), self.usual.double().expand_as(logits)
        for name, metric in metrics.items():
            metric.update(guess if name.endswith(CHANCE_METRICS) else probability, truth)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the classes of more than half of the training rows; for areas, a random order."""
        return chance_scores(values)

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the classes with a probability above 0.5, most likely first, and their probabilities."""
        messages = [
            sorted(((p, n) for p, n in zip(row, self.names, strict=True) if p > 0.5), key=lambda pair: -pair[0])
            for row in predictions.float().sigmoid().tolist()
        ]
        return [
            {self.targets[0]: [n for _, n in row], "probabilities": [round(p, 6) for p, _ in row]} if readable else {}
            for row, readable in zip(messages, batch.has_any(self.needs).tolist(), strict=True)
        ]
