"""Ranking: one score per row, learned from pairs of rows in a group with different targets (10.1145/1102351.1102363).

A group is the rows that share a content, such as several images of one text. A row is in the group if it contains the
content or only its key. Pairs are formed within a batch of one process, so a micro-batch must contain several rows of a
group. The count is that of pairs. Scores use the complete split: the rows of a pair may be in different batches.
"""

from typing import Any

from torch import Tensor

from mmtrain.annotations import Flattened
from mmtrain.losses.ranking import ordered_pairs, pairwise_logistic
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.ranking import RankingMetric
from mmtrain.tasks.names import check_names
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
from mmtrain.types import Batch, NumberTarget, View


class Ranking(SupervisedTask):
    """Learns the order of rows within groups.

    Args:
        head: features and target of the head.
        group_by: modality whose content defines a group.

    Raises:
        ValueError: for an unknown target, feature source or group modality.
    """

    monitor = "pairwise_accuracy"

    def __init__(self, *, head: Flattened[HeadSpec], group_by: str) -> None:
        check_names(("group_by", group_by, head.modalities))
        known = head.known
        if not isinstance(known, NumberTarget) or len(known.names) != 1:
            numbers = len(known.names) if isinstance(known, NumberTarget) else "no"
            raise ValueError(
                f"target = {head.target} has {numbers} numbers, but ranking needs one; make it a column of one number,"
                f" with target@data.targets.{head.target}=number, or set another target"
            )
        head.refuse_distributions("needs distributions over classes, but ranking has a score")
        super().__init__(head, 1)
        self.group_by = group_by
        self.known = known

    def forward(self, view: View) -> Tensor:
        """Return scores (B,) for a view, without unit, comparable only within a group."""
        return super().forward(view).squeeze(1)

    def _valid(self, batch: Batch) -> Tensor:
        """Return the labelled rows of a known group with a modality to read."""
        return super()._valid(batch) & (batch.keys[self.group_by] != 0)

    def _truths(self, batch: Batch) -> Tensor:
        return batch.targets[self.targets[0]].squeeze(1)

    def count(self, batch: Batch) -> Tensor:
        """Count the pairs of rows in a group with different targets."""
        return ordered_pairs(self._truths(batch), batch.keys[self.group_by], self._valid(batch)).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the pairwise logistic loss of scores (B,): (sum, number of pairs)."""
        return pairwise_logistic(predictions, self._truths(batch), batch.keys[self.group_by], self._valid(batch))

    def metrics(self) -> RankingMetric:
        """Return pairwise accuracy and NDCG at 10 over the groups of the complete split."""
        return RankingMetric(mean=self.known.mean[0], std=self.known.std[0])

    def update(self, metrics: RankingMetric, predictions: Tensor, batch: Batch) -> None:
        """Add the scores of the rows that belong to a group.

        Raises:
            FloatingPointError: if a score is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        if not predictions[valid].isfinite().all():
            raise FloatingPointError(f"ranking of {self.targets[0]}: a score is not finite")
        # also without valid rows: otherwise the metric would be out of sync with other processes
        metrics.update(predictions[valid], self._truths(batch)[valid], batch.keys[self.group_by][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the mean over all orders."""
        return chance_scores(values)

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the score."""
        return [
            {"score": float(f"{score:.7g}")} if readable else {}
            for score, readable in zip(predictions.float().tolist(), batch.has_any(self.needs).tolist(), strict=True)
        ]
