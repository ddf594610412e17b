"""Classification: a linear head, cross entropy over the labelled rows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from mmtrain.layers.head import Decides, PooledHead, make_head
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.types import Batch, ClassTarget, Confusion, Retrieval


class Classification(nn.Module):
    """One class a row.

    Args:
        dims: width by what can be read: "fused" and each modality.
        known_targets: what the data knows of each target, by name.
        target: name of the class target.
        reads: "fused" or one modality.
        weight: see `Task`.
        dropout: before the head.
        label_smoothing: share of the target spread over all classes.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when the data has no such target or nothing of that name can be read.
    """

    monitor = "accuracy"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, ClassTarget],
        target: str,
        reads: str,
        weight: float,
        dropout: float,
        label_smoothing: float,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        for key, value, known in (("target", target, known_targets), ("reads", reads, dims)):
            if value not in known:
                raise ValueError(f"{key} = {value}, but there is {', '.join(known) or 'none'}; name one of them")
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.names = known_targets[target].names
        if len(self.names) < 2:
            raise ValueError(
                f"target = {target} has only the class {', '.join(self.names) or 'none'} in training;"
                " add rows of another, or leave the task out"
            )
        self.dropout = dropout
        decides = decides if reads == "fused" else None
        self.head = make_head(dims[reads], len(self.names), dropout=dropout, decides=decides)

    def forward(self, view: Any) -> Tensor:
        """Logits (B, C) for a view."""
        return self.head(view.features(self.reads[0]))

    def new_head(self, dim: int) -> nn.Module:
        """Another head for features of that width."""
        return PooledHead(dim, len(self.names), dropout=self.dropout)

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The probability of the true class, summed over the labelled rows, and their count."""
        valid = self._valid(batch)
        truth = batch.targets[self.targets[0]].masked_fill(~valid, 0).unsqueeze(1)
        probability = predictions.float().softmax(dim=1).gather(1, truth).squeeze(1)
        return probability.masked_fill(~valid, 0.0).sum(), valid.sum()

    def _valid(self, batch: Batch) -> Tensor:
        return batch.labelled[self.targets[0]] & self._readable(batch)

    def _readable(self, batch: Batch) -> Tensor:
        return torch.stack([batch.present[m] for m in self.needs or tuple(batch.present)]).any(dim=0)

    def count(self, batch: Batch) -> Tensor:
        """Labelled rows with something to read."""
        return self._valid(batch).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy of logits (B, C): (sum, count)."""
        return cross_entropy(
            predictions, batch.targets[self.targets[0]], self._valid(batch), label_smoothing=self.label_smoothing
        )

    def metrics(self) -> MetricCollection:
        """Accuracy, macro F1 and the confusion matrix (C, C), rows true."""
        num = len(self.names)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num, average="micro"),
                "macro_f1": MulticlassF1Score(num, average="macro"),
                "confusion": MulticlassConfusionMatrix(num),
            },
            compute_groups=False,
        )

    def update(self, metrics: MetricCollection, predictions: Tensor, batch: Batch) -> None:
        """Count the labelled rows.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        valid = self._valid(batch)
        logits = predictions[valid].float()
        if not logits.isfinite().all():
            raise FloatingPointError(f"classification of {self.targets[0]}: a logit is not finite")
        if len(logits):
            metrics.update(logits, batch.targets[self.targets[0]][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the most frequent class of the rows that were counted."""
        counts = values["confusion"].sum(dim=1).double()
        share = float(counts.max() / counts.sum().clamp(min=1))
        classes = max(int((counts > 0).sum()), 1)
        return {"accuracy": share, "macro_f1": 2 * share / (1 + share) / classes}

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Retrieval | Confusion]:
        """The confusion matrix."""
        return [Confusion(task=self.targets[0], names=list(self.names), counts=values["confusion"].tolist())]

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """The most likely class and its probability, where there is something to read."""
        probability, best = predictions.float().softmax(dim=1).max(dim=1)
        columns = (best.tolist(), probability.tolist(), self._readable(batch).tolist())
        return [
            {self.targets[0]: self.names[c], "probability": round(p, 6)} if readable else {}
            for c, p, readable in zip(*columns, strict=True)
        ]
