"""Matching: does this text belong to this picture? Fused features of right and wrong pairs (ALBEF, 2107.07651, 3.2).

In training each row gives three pairs: its own, its left side with a wrong right side, and the other way round; the
wrong ones are drawn with the probabilities that the contrastive task gives them, so that they are hard, mixed with even
ones. Without that task all are drawn evenly. In evaluation the wrong side is that of a fixed other row of the batch:
the same for any number of ranks and for every model, so that runs can be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from mmtrain.layers.head import Decides, PooledHead
from mmtrain.losses.contrastive import Related
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.types import Batch, Exhibit

IGNORED = -1  # the truth of a pair that does not count


class Pairs(NamedTuple):
    """Logits of right pairs (B, 2) and of wrong ones (N, B, 2), and which rows have a wrong partner (B,)."""

    right: Tensor
    wrong: Tensor
    has_wrong: Tensor


class Matching(nn.Module):
    """A two-class head over the fused features.

    Args:
        dims: width by what can be read.
        modalities: the two whose pairing is judged.
        negatives_from: name of the contrastive task whose similarities choose the hard wrong partners.
        hard_share: how many of the wrong partners are hard; the others are drawn evenly. Hard ones alone teach nothing
            where they are nearly right, such as another skin tone of the same gesture.
        weight: see `Task`.
        dropout: before the head.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: for a pair that is none, and a fusion that never looks at two modalities together.
    """

    reads: tuple[str, ...] = ("fused",)
    targets: tuple[str, ...] = ()
    monitor = "accuracy"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        modalities: Sequence[str],
        negatives_from: str,
        hard_share: float,
        weight: float,
        dropout: float,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        if len(modalities) != 2 or modalities[0] == modalities[1]:
            raise ValueError(
                f"modalities = {list(modalities)}; matching takes two different ones, such as [image, text]"
            )
        if decides is not None:
            raise ValueError(
                "matching judges two modalities together, but the fusion decides by each alone;"
                " choose another, such as fusion=cross_attn, or leave the task out"
            )
        self.needs = tuple(modalities)
        if not 0.0 <= hard_share <= 1.0:
            raise ValueError(f"hard_share = {hard_share}; set it to a share from 0 to 1")
        self.negatives_from = negatives_from
        self.hard_share = hard_share
        self.weight = weight
        self.head = PooledHead(dims["fused"], 2, dropout=dropout)

    def forward(self, view: Any) -> Pairs:
        """Judge the view's own pairs and wrong ones made of its rows."""
        left, right = self.needs
        allowed = self._allowed(view.batch)
        if self.training:
            weights = self._chances(view, allowed)
            partners = [{right: _draw(weights[0])}, {left: _draw(weights[1])}]
        else:
            partners = [{right: _next(allowed)}]
        wrong = torch.stack([self._judge(view.paired(rows)) for rows in partners])
        # allowed has a row or column for a wrong partner on either side, by the same relation
        return Pairs(self._judge(view), wrong, allowed.any(dim=1) & allowed.any(dim=0))

    def _judge(self, view: Any) -> Tensor:
        return self.head(view.fused())

    def _allowed(self, batch: Batch) -> Tensor:
        """(B, B), bool: left side of row i with right side of row j is a wrong pair, and both sides are there."""
        left, right = self.needs
        pairs = batch.present[left] & batch.present[right]
        keys = batch.keys
        positive = Related(keys[left], keys[right], keys[right])(keys[left])
        return ~positive & pairs.unsqueeze(1) & pairs

    def _chances(self, view: Any, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """(B, B) twice, rows summing to 1 or 0: the chance of each right side for a left one, and the reverse."""
        if self.negatives_from not in view.model.tasks:
            return _shares(allowed.float()), _shares(allowed.T.float())
        left, right = self.needs
        vectors = view.predictions(self.negatives_from)  # with their gradient: the view keeps them for the other tasks
        with torch.no_grad():
            similarity = view.model.tasks[self.negatives_from].scale * vectors[left].float() @ vectors[right].float().T
            return self._mixed(similarity, allowed), self._mixed(similarity.T, allowed.T)

    def _mixed(self, similarity: Tensor, allowed: Tensor) -> Tensor:
        hard = similarity.masked_fill(~allowed, float("-inf")).softmax(dim=1).nan_to_num(0.0)  # nothing allowed: 0
        return self.hard_share * hard + (1.0 - self.hard_share) * _shares(allowed.float())

    def count(self, batch: Batch) -> Tensor:
        """Rows that have both sides and a wrong partner in the batch."""
        allowed = self._allowed(batch)
        return (allowed.any(dim=1) & allowed.any(dim=0)).sum()

    def loss(self, predictions: Pairs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy averaged over a row's pairs: (sum over rows, count of rows)."""
        logits = torch.cat([predictions.right.unsqueeze(0), predictions.wrong])  # (1 + N, B, 2)
        truth = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)
        truth[0] = 1
        valid = predictions.has_wrong.expand(len(logits), -1)
        total, _ = cross_entropy(logits.flatten(0, 1), truth.flatten(), valid.flatten())
        return total / len(logits), predictions.has_wrong.sum()

    def metrics(self) -> MetricCollection:
        """Accuracy and the area under the ROC curve, right and wrong pairs in equal number."""
        accuracy, auroc = BinaryAccuracy(ignore_index=IGNORED), BinaryAUROC(ignore_index=IGNORED)
        return MetricCollection({"accuracy": accuracy, "auroc": auroc}, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Pairs, batch: Batch) -> None:
        """Count the right and the wrong pair of every row that has both.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        logits = torch.cat([predictions.right, predictions.wrong[0]]).float()
        counts = predictions.has_wrong.repeat(2)
        if not logits[counts].isfinite().all():
            raise FloatingPointError("matching: a logit is not finite")
        truth = torch.arange(2, device=logits.device).flip(0).repeat_interleave(len(batch))
        # all rows, also where none counts: a metric that was never shown one is out of step with other processes'
        probability = logits.softmax(dim=1)[:, 1].masked_fill(~counts, 0.0)
        metrics.update(probability, truth.masked_fill(~counts, IGNORED))

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """A coin."""
        return {"accuracy": 0.5, "auroc": 0.5}

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Pairs, batch: Batch) -> list[dict[str, Any]]:
        """The probability that the row's own pair belongs together."""
        left, right = self.needs
        both = (batch.present[left] & batch.present[right]).tolist()
        probability = predictions.right.float().softmax(dim=1)[:, 1].tolist()
        return [{"match": round(p, 6)} if has else {} for p, has in zip(probability, both, strict=True)]


def _shares(weights: Tensor) -> Tensor:
    """Rows scaled to sum to 1; a row of zeros stays."""
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _draw(weights: Tensor) -> Tensor:
    """(B,), int64: one column a row with probability in proportion to its weight; column 0 where all are zero."""
    nothing = weights.sum(dim=1) == 0
    first = torch.zeros_like(weights)
    first[:, 0] = 1.0
    return torch.multinomial(torch.where(nothing.unsqueeze(1), first, weights), 1).squeeze(1)


def _next(allowed: Tensor) -> Tensor:
    """(B,), int64: for row i the first j in i + B/2, i + B/2 + 1, ... (going round) that is allowed; i if none is.

    Half a batch away, because tables are often sorted and neighbours alike.
    """
    size = len(allowed)
    order = (
        torch.arange(size, device=allowed.device).unsqueeze(1) + torch.arange(size, device=allowed.device) + size // 2
    ) % size
    first = allowed.gather(1, order).int().argmax(dim=1)
    found = order.gather(1, first.unsqueeze(1)).squeeze(1)
    return torch.where(allowed.any(dim=1), found, torch.arange(size, device=allowed.device))
