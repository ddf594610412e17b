"""Multi-label classification: a linear head, binary cross entropy over the labelled rows.

A class is predicted if its probability is above 0.5. Scores are means over classes. Mean average precision is over the
classes that occur in the evaluated rows (0 if none does). F1 is over all classes, and 0 for a class that neither occurs
nor is predicted.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelExactMatch, MultilabelF1Score

from mmtrain.annotations import Fraction, NonNegativeFloat
from mmtrain.layers.head import Decides, PooledHead, make_head
from mmtrain.losses.binary_cross_entropy import binary_cross_entropy
from mmtrain.metrics.chance import GUESSED, guessed
from mmtrain.metrics.score_curves import ScoreCurves
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit, MultiLabelTarget, View


class MultiLabel(nn.Module):
    """Multi-label classification.

    Args:
        dims: width by feature source: "fused" and each modality.
        known_targets: metadata of each target, by name.
        target: name of the multi-label target.
        reads: features to read: "fused" or one modality.
        weight: see `Task`.
        dropout: dropout probability before the head.
        positive_weights: None, or "balanced": the factor of a class's positives is the ratio of negatives to positives
            in training.
        decides: the fusion, if it is a late fusion.

    Raises:
        ValueError: for an unknown target or feature source.
    """

    monitor = "mean_average_precision"
    positive_weights: Tensor | None
    usual: Tensor

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        reads: str,
        weight: NonNegativeFloat,
        dropout: Fraction,
        positive_weights: Literal["balanced"] | None,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), ("reads", reads, dims))
        known = known_targets[target]
        if not isinstance(known, MultiLabelTarget) or not known.names:
            raise ValueError(
                f"target = {target} has no lists of classes; make it one that has, with"
                f" target@data.targets.{target}=multilabel, or set another target"
            )
        if positive_weights not in (None, "balanced"):
            raise ValueError(f"positive_weights = {positive_weights}; set it to balanced or null")
        decides = decides if reads == "fused" else None
        if decides is not None and decides.decides_by in ("mean_probabilities", "product"):
            raise ValueError(
                f"fusion.combine = {decides.decides_by} assumes one class per row, but multilabel has several;"
                " set it to mean_logits or learned"
            )
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.weight = weight
        self.names = known.names
        self.dropout = dropout
        counts = torch.tensor(known.counts, dtype=torch.float32)
        lacking = (known.num_rows - counts).clamp(min=1.0)  # otherwise a class of every row would have weight 0
        # follow from the data, so not saved in checkpoints
        self.register_buffer("positive_weights", lacking / counts if positive_weights else None, persistent=False)
        self.register_buffer("usual", counts > known.num_rows / 2, persistent=False)
        self.head = make_head(dims[reads], len(self.names), dropout=dropout, decides=decides)

    def forward(self, view: View) -> Tensor:
        """Return logits (B, C) for a view."""
        return self.head(view.features(self.reads[0]))

    def new_head(self, dim: int) -> nn.Module:
        """Build another head for features of this width."""
        return PooledHead(dim, len(self.names), dropout=self.dropout)

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the class mean of the probability of the truth, summed over the labelled rows, and their number."""
        valid = self._valid(batch)
        truth = batch.targets[self.targets[0]]
        probability = (predictions.float() * (2.0 * truth - 1.0)).sigmoid().mean(dim=1)
        return probability.masked_fill(~valid, 0.0).sum(), valid.sum()

    def _valid(self, batch: Batch) -> Tensor:
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def count(self, batch: Batch) -> Tensor:
        """Count the labelled rows with a modality to read."""
        return self._valid(batch).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the binary cross entropy of logits (B, C), its mean over classes: (sum, count)."""
        truth = batch.targets[self.targets[0]]
        return binary_cross_entropy(predictions, truth, self._valid(batch), positive_weights=self.positive_weights)

    def metrics(self) -> MetricCollection:
        """Return mAP, AUROC, macro and micro F1 and exact match; the last three also for the chance level."""
        num = len(self.names)
        scores: dict[str, Metric | MetricCollection] = {"curves": ScoreCurves(num_classes=num)}
        for kind in ("", GUESSED):
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
        said, guess = logits.sigmoid(), self.usual.double().expand_as(logits)
        for name, metric in metrics.items():
            metric.update(guess if name.endswith(GUESSED) else said, truth)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the classes of more than half of the training rows; for areas, a random order."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Return []: there is nothing to draw."""
        return []

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the classes with a probability above 0.5, most likely first, and their probabilities."""
        said = [
            sorted(((p, n) for p, n in zip(row, self.names, strict=True) if p > 0.5), key=lambda pair: -pair[0])
            for row in predictions.float().sigmoid().tolist()
        ]
        return [
            {self.targets[0]: [n for _, n in row], "probabilities": [round(p, 6) for p, _ in row]} if readable else {}
            for row, readable in zip(said, batch.has_any(self.needs).tolist(), strict=True)
        ]
