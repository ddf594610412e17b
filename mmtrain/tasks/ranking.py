"""Ranking: one score a row, learned from pairs of rows of one group whose truths differ (10.1145/1102351.1102363).

A group is the rows that share a content, such as several pictures of one text, whether they carry it or only know its
key. Pairs are made within a batch of one process, so that a micro-batch has to hold several rows of a group; what is
counted is pairs. Scores are of the whole split: a pair need not have met in a batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from mmtrain.layers.head import Decides, PooledHead, make_head
from mmtrain.losses.ranking import ordered_pairs, pairwise_logistic
from mmtrain.metrics.chance import guessed
from mmtrain.metrics.ranking import RankingMetric
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit, NumberTarget


class Ranking(nn.Module):
    """The order of rows within their groups.

    Args:
        dims: width by what can be read: "fused" and each modality.
        known_targets: what the data knows of each target, by name.
        target: name of the target of one number, higher is better.
        group_by: the modality whose content makes a group.
        reads: "fused" or one modality.
        weight: see `Task`.
        dropout: before the head.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when the data has no such target or nothing of that name can be read.
    """

    monitor = "pairwise_accuracy"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        group_by: str,
        reads: str,
        weight: float,
        dropout: float,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        modalities = [name for name in dims if name != "fused"]
        choices = (("target", target, known_targets), ("reads", reads, dims), ("group_by", group_by, modalities))
        check_names(*choices)
        known = known_targets[target]
        if not isinstance(known, NumberTarget) or len(known.names) != 1:
            numbers = len(known.names) if isinstance(known, NumberTarget) else "no"
            raise ValueError(
                f"target = {target} has {numbers} numbers, but ranking is by one; make it a column of one number, with"
                f" target@data.targets.{target}=number, or name another"
            )
        decides = decides if reads == "fused" else None
        if decides is not None and decides.decides_by in ("mean_probabilities", "product"):
            raise ValueError(
                f"fusion.combine = {decides.decides_by} is of distributions over classes, but ranking has a score;"
                " set it to mean_logits or learned"
            )
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.group_by = group_by
        self.weight = weight
        self.known = known
        self.dropout = dropout
        self.head = make_head(dims[reads], 1, dropout=dropout, decides=decides)

    def forward(self, view: Any) -> Tensor:
        """Scores (B,) for a view; of no unit, and comparable within a group alone."""
        return self.head(view.features(self.reads[0])).squeeze(1)

    def new_head(self, dim: int) -> nn.Module:
        """Another head for features of that width; it gives (B, 1)."""
        return PooledHead(dim, 1, dropout=self.dropout)

    def _valid(self, batch: Batch) -> Tensor:
        """Labelled rows of a known group with something to read."""
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs) & (batch.keys[self.group_by] != 0)

    def _truths(self, batch: Batch) -> Tensor:
        return batch.targets[self.targets[0]].squeeze(1)

    def count(self, batch: Batch) -> Tensor:
        """Pairs of rows of one group whose truths differ."""
        return ordered_pairs(self._truths(batch), batch.keys[self.group_by], self._valid(batch)).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The pairwise logistic loss of scores (B,): (sum, count of pairs)."""
        return pairwise_logistic(predictions, self._truths(batch), batch.keys[self.group_by], self._valid(batch))

    def metrics(self) -> RankingMetric:
        """Pairwise accuracy and NDCG at 10 over the groups of the whole split."""
        return RankingMetric(mean=self.known.mean[0], std=self.known.std[0])

    def update(self, metrics: RankingMetric, predictions: Tensor, batch: Batch) -> None:
        """Keep the scores of the rows that belong to a group.

        Raises:
            FloatingPointError: when a score is not finite: it must not score.
        """
        valid = self._valid(batch)
        if not predictions[valid].isfinite().all():
            raise FloatingPointError(f"ranking of {self.targets[0]}: a score is not finite")
        # also where no row counts: a metric that was never shown one is out of step with other processes'
        metrics.update(predictions[valid], self._truths(batch)[valid], batch.keys[self.group_by][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """The mean over every order."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """The score."""
        return [
            {"score": float(f"{score:.7g}")} if readable else {}
            for score, readable in zip(predictions.float().tolist(), batch.has_any(self.needs).tolist(), strict=True)
        ]
