"""Several classes a row at once: a linear head, binary cross entropy over the labelled rows.

A class counts as said from a probability above 0.5. Scores are means over classes: mean average precision over those
that some counted row has (0 where none has any), F1 over all, 0 for a class that is neither there nor said.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelExactMatch, MultilabelF1Score

from mmtrain.layers.head import Decides, PooledHead, make_head
from mmtrain.losses.binary_cross_entropy import binary_cross_entropy
from mmtrain.metrics.chance import GUESSED, guessed
from mmtrain.metrics.score_curves import ScoreCurves
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit, MultiLabelTarget


class MultiLabel(nn.Module):
    """Any number of classes a row.

    Args:
        dims: width by what can be read: "fused" and each modality.
        known_targets: what the data knows of each target, by name.
        target: name of the target of lists of classes.
        reads: "fused" or one modality.
        weight: see `Task`.
        dropout: before the head.
        positive_weights: None, or balanced: a class that a row has costs as much more as rows that lack it are more
            frequent in training.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when the data has no such target or nothing of that name can be read.
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
        weight: float,
        dropout: float,
        positive_weights: str | None,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), ("reads", reads, dims))
        known = known_targets[target]
        if not isinstance(known, MultiLabelTarget) or not known.names:
            raise ValueError(
                f"target = {target} has no lists of classes; make it one that has, with"
                f" target@data.targets.{target}=multilabel, or name another"
            )
        if positive_weights not in (None, "balanced"):
            raise ValueError(f"positive_weights = {positive_weights}; set it to balanced or null")
        decides = decides if reads == "fused" else None
        if decides is not None and decides.decides_by in ("mean_probabilities", "product"):
            raise ValueError(
                f"fusion.combine = {decides.decides_by} is of one class a row, but multilabel has several;"
                " set it to mean_logits or learned"
            )
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.weight = weight
        self.names = known.names
        self.dropout = dropout
        counts = torch.tensor(known.counts, dtype=torch.float32)
        lacking = (known.num_rows - counts).clamp(min=1.0)  # else a class that every row has would not be learned
        # facts of the data, which a checkpoint need not hold
        self.register_buffer("positive_weights", lacking / counts if positive_weights else None, persistent=False)
        self.register_buffer("usual", counts > known.num_rows / 2, persistent=False)
        self.head = make_head(dims[reads], len(self.names), dropout=dropout, decides=decides)

    def forward(self, view: Any) -> Tensor:
        """Logits (B, C) for a view."""
        return self.head(view.features(self.reads[0]))

    def new_head(self, dim: int) -> nn.Module:
        """Another head for features of that width."""
        return PooledHead(dim, len(self.names), dropout=self.dropout)

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The probability of what is true of each class, its mean summed over the labelled rows, and their count."""
        valid = self._valid(batch)
        truth = batch.targets[self.targets[0]]
        probability = (predictions.float() * (2.0 * truth - 1.0)).sigmoid().mean(dim=1)
        return probability.masked_fill(~valid, 0.0).sum(), valid.sum()

    def _valid(self, batch: Batch) -> Tensor:
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def count(self, batch: Batch) -> Tensor:
        """Labelled rows with something to read."""
        return self._valid(batch).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Binary cross entropy of logits (B, C), its mean over classes: (sum, count)."""
        truth = batch.targets[self.targets[0]]
        return binary_cross_entropy(predictions, truth, self._valid(batch), positive_weights=self.positive_weights)

    def metrics(self) -> MetricCollection:
        """Mean average precision, AUROC, macro and micro F1, exact match; the last three also of the usual classes."""
        num = len(self.names)
        scores: dict[str, Metric | MetricCollection] = {"curves": ScoreCurves(num_classes=num)}
        for kind in ("", GUESSED):
            scores[f"macro_f1{kind}"] = MultilabelF1Score(num, average="macro")
            scores[f"micro_f1{kind}"] = MultilabelF1Score(num, average="micro")
            scores[f"exact_match{kind}"] = MultilabelExactMatch(num)
        return MetricCollection(scores, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Tensor, batch: Batch) -> None:
        """Count the labelled rows.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
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
        """Always the classes that more than half of training's rows have; of areas, a random order."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """The classes above a probability of 0.5, the likeliest first, and their probabilities."""
        said = [
            sorted(((p, n) for p, n in zip(row, self.names, strict=True) if p > 0.5), key=lambda pair: -pair[0])
            for row in predictions.float().sigmoid().tolist()
        ]
        return [
            {self.targets[0]: [n for _, n in row], "probabilities": [round(p, 6) for p, _ in row]} if readable else {}
            for row, readable in zip(said, batch.has_any(self.needs).tolist(), strict=True)
        ]
