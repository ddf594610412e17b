"""Visual question answering as a choice among the most frequent answers (1612.00837), from any modalities.

A row has a value for each answer: its VQA accuracy, from 0 to 1, as in the official evaluation. The loss learns these
values, as in 1707.07998 and ViLT (2102.03334).

With binary cross entropy (a sum over the answers), each answer learns its value. With cross entropy, the target is the
value divided by the sum of values. A row without any selectable answer is then excluded from the loss. In the scores it
counts as wrong.
"""

from typing import Any, Literal, get_args

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric

from mmtrain.annotations import Flattened
from mmtrain.losses.binary_cross_entropy import binary_cross_entropy
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import CHANCE_METRICS, chance_scores
from mmtrain.tasks.names import check_names
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
from mmtrain.types import AnswerTarget, Batch

Loss = Literal["binary_cross_entropy", "cross_entropy"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class VQA(SupervisedTask):
    """Visual question answering, one answer per row.

    Args:
        head: features and target of the head.
        loss: binary_cross_entropy or cross_entropy.

    Raises:
        ValueError: for an unknown target, feature source or loss.
    """

    monitor = "vqa_accuracy"

    def __init__(self, *, head: Flattened[HeadSpec], loss: Loss) -> None:
        check_names(("loss", loss, LOSSES))
        known = head.known
        if not isinstance(known, AnswerTarget):
            raise ValueError(
                f"target = {head.target} has no answers; make it one that has, with"
                f" target@data.targets.{head.target}=answer, or set another target"
            )
        if len(known.names) < 2:
            raise ValueError(
                f"target = {head.target} has only the answer {', '.join(known.names) or 'none'} in training;"
                f" set data.targets.{head.target}.num_answers to more, or remove the task"
            )
        if head.combines_distributions and loss == "binary_cross_entropy":
            raise ValueError(
                "loss = binary_cross_entropy scores each answer alone, but the fusion combines distributions over all;"
                " set it to cross_entropy, or fusion.combine to mean_logits"
            )
        super().__init__(head, len(known.names))
        self.kind = loss
        self.names = known.names
        self.most_frequent = max(range(len(known.counts)), key=known.counts.__getitem__)

    def confidence(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the value-weighted probability of a row's answers, summed over rows of the loss, and their count."""
        learned = self._learned(batch)
        worth = batch.targets[self.targets[0]].masked_fill(~learned.unsqueeze(1), 0.0)
        probability = self._probability(predictions).masked_fill(~learned.unsqueeze(1), 0.0)
        return (_shares(worth) * probability).sum(), learned.sum()

    def _probability(self, predictions: Tensor) -> Tensor:
        logits = predictions.float()
        return logits.sigmoid() if self.kind == "binary_cross_entropy" else logits.softmax(dim=1)

    def _learned(self, batch: Batch) -> Tensor:
        if self.kind == "binary_cross_entropy":
            return self._valid(batch)
        return self._valid(batch) & (batch.targets[self.targets[0]] > 0).any(dim=1)

    def count(self, batch: Batch) -> Tensor:
        """Count the labelled rows with a modality to read; for cross entropy, those with a selectable answer."""
        return self._learned(batch).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of logits (B, C): (sum, count)."""
        worth, learned = batch.targets[self.targets[0]], self._learned(batch)
        if self.kind == "cross_entropy":
            return cross_entropy(predictions, _shares(worth), learned)
        total, count = binary_cross_entropy(predictions, worth, learned)
        return total * len(self.names), count  # the sum over answers: with their mean, gradients would be too small

    def metrics(self) -> MetricCollection:
        """Return the value of the selected answer, how often none is better, and both for the most frequent answer."""
        names = [f"{name}{kind}" for name in ("vqa_accuracy", "exact_match") for kind in ("", CHANCE_METRICS)]
        scores: dict[str, Metric | MetricCollection] = {name: MeanMetric(nan_strategy="error") for name in names}
        return MetricCollection(scores, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Tensor, batch: Batch) -> None:
        """Add the labelled rows.

        An exact match is an answer with the highest value among the row's selectable answers, and a value above 0.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        logits, worth = predictions[valid].float(), batch.targets[self.targets[0]][valid]
        if not logits.isfinite().all():
            raise FloatingPointError(f"vqa of {self.targets[0]}: a logit is not finite")
        if not len(logits):
            return
        chosen = worth.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
        best = worth.amax(dim=1)
        for kind, scored in (("", chosen), (CHANCE_METRICS, worth[:, self.most_frequent])):
            metrics[f"vqa_accuracy{kind}"].update(scored)
            metrics[f"exact_match{kind}"].update(((scored == best) & (scored > 0)).float())

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the most frequent answer of the training split."""
        return chance_scores(values)

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer and its probability, for rows with a modality to read."""
        probability = self._probability(predictions)
        best = predictions.float().argmax(dim=1)
        sure = probability.gather(1, best.unsqueeze(1)).squeeze(1)
        columns = (best.tolist(), sure.tolist(), batch.has_any(self.needs).tolist())
        return [
            {self.targets[0]: self.names[c], "probability": round(p, 6)} if readable else {}
            for c, p, readable in zip(*columns, strict=True)
        ]


def _shares(worth: Tensor) -> Tensor:
    """Scale rows (B, C) to sum 1; a row of zeros is unchanged."""
    total = worth.sum(dim=1, keepdim=True)
    return worth / total.masked_fill(total == 0, 1.0)
