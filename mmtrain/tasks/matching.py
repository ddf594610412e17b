"""Matching: does this text belong to this picture? Fused features of right and wrong pairs (ALBEF, 2107.07651, 3.2).

In training each row gives three pairs: its own, its left side with a wrong right side, and the other way round; the
wrong ones are drawn with the probabilities that the contrastive task gives them, so that they are hard, mixed with even
ones. Without that task all are drawn evenly. Unlike there, they are drawn from all rows of the step, and by noise that
two rows bring along, so that micro-batches and ranks change nothing. In evaluation the wrong side is that of a fixed
other row of the batch: the same for any number of ranks and for every model, so that runs can be compared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from mmtrain.layers.head import Decides, PooledHead
from mmtrain.layers.masking import pair_noise
from mmtrain.losses.contrastive import Related
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.types import Batch, Exhibit

IGNORED = -1  # the truth of a pair that does not count
PARTNERS = ("step", "part")
AT_ONCE = 2**24  # pairs of rows that are looked at together


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
        partners: step: drawn from all rows of the step; part: from those of the same micro-batch and rank, which
            spares sending them, or encoding them once more, and makes the draw depend on the cut.
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
        partners: str,
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
        if partners not in PARTNERS:
            raise ValueError(f"partners = {partners}; set it to {' or '.join(PARTNERS)}")
        self.negatives_from = negatives_from
        self.partners = partners
        self.hard_share = hard_share
        self.weight = weight
        self.head = PooledHead(dims["fused"], 2, dropout=dropout)

    def forward(self, view: Any) -> Pairs:
        """Judge the view's own pairs and wrong ones made of its rows, in training of all rows of its step."""
        left, right = self.needs
        step = view.batch.step
        if self.training:
            rights, lefts, has_wrong = self._drawn(view)
            asked: list[dict[str, Tensor]] = [{right: rights}, {left: lefts}]
        else:
            rights, has_wrong = self._fixed(view.batch)
            asked = [{right: rights}]
        paired = view.paired if step is None else partial(step.paired, view)
        return Pairs(self._judge(view), torch.stack([self._judge(paired(places)) for places in asked]), has_wrong)

    def pairs_within_step(self) -> bool:
        """As asked for; in evaluation batches stand alone."""
        return self.partners == "step" and self.training

    def _judge(self, view: Any) -> Tensor:
        return self.head(view.fused())

    def _allowed(self, batch: Batch, others: Batch) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some rows of the batch at a time, and whether they and (N) others make wrong pairs of which both sides exist.

        Gives (rows, right (b, N), left (b, N)), bool: with the right side of the other, and with its left side.
        """
        left, right = self.needs
        keys, there = others.keys, others.present[left] & others.present[right]
        both = batch.present[left] & batch.present[right]
        rights, lefts = (Related(keys[a], keys[b], keys[b]) for a, b in ((left, right), (right, left)))
        chunk = max(1, AT_ONCE // max(1, len(there)))
        for first in range(0, len(both), chunk):
            rows = slice(first, first + chunk)
            possible = both[rows].unsqueeze(1) & there
            yield rows, possible & ~rights(batch.keys[left][rows]), possible & ~lefts(batch.keys[right][rows])

    def _drawn(self, view: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(B,), int64, which rows the wrong right and left sides come from, and (B,), bool, whether there are both."""
        batch, step = view.batch, view.batch.step
        others = batch if step is None else step.everything
        own = torch.arange(len(batch), device=batch.draws.device) if step is None else step.place()
        vectors = self._vectors(view)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows, rights, lefts in self._allowed(batch, others):
            sides, allowed = [], (rights, lefts)
            for (asks, answers), wrong, salt in zip((self.needs, self.needs[::-1]), allowed, (1, 2), strict=True):
                similarity = None if vectors is None else vectors[0][asks][rows] @ vectors[1][answers].T
                drawn = _draw(self._chances(similarity, wrong), pair_noise(batch.draws[rows], others.draws, salt))
                sides.append(torch.where(wrong.any(dim=1), drawn, own[rows]))
            found.append((sides[0], sides[1], allowed[0].any(dim=1) & allowed[1].any(dim=1)))
        of_right, of_left, has_wrong = (torch.cat(column) for column in zip(*found, strict=True))
        return of_right, of_left, has_wrong

    def _vectors(self, view: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """By modality (B, D), those of the batch times their scale, and (N, D), those of all rows; no gradient."""
        if self.negatives_from not in view.model.tasks:
            return None
        own = view.predictions(self.negatives_from)  # with their gradient: the view keeps them for the other tasks
        everyone = own if view.batch.step is None else view.batch.step.vectors(self.negatives_from, own)
        scale = view.model.tasks[self.negatives_from].scale.detach()
        return {m: scale * own[m].detach() for m in own}, {m: v.detach() for m, v in everyone.items()}

    def _chances(self, similarity: Tensor | None, allowed: Tensor) -> Tensor:
        """(B, N), rows summing to 1 or 0."""
        if similarity is None:
            return _shares(allowed.float())
        hard = similarity.masked_fill(~allowed, float("-inf")).softmax(dim=1).nan_to_num(0.0)  # nothing allowed: 0
        return self.hard_share * hard + (1.0 - self.hard_share) * _shares(allowed.float())

    def _fixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,), int64, the rows that wrong right sides come from, and (B,), bool, whether wrong ones exist."""
        _, rights, lefts = zip(*self._allowed(batch, batch), strict=True)
        right, left = torch.cat(rights), torch.cat(lefts)
        return _next(right), right.any(dim=1) & left.any(dim=1)

    def count(self, batch: Batch) -> Tensor:
        """Rows that have both sides and, among what they may be paired with, a wrong partner for either."""
        others = batch if batch.step is None else batch.step.everything
        found = [(right.any(dim=1) & left.any(dim=1)).sum() for _, right, left in self._allowed(batch, others)]
        return torch.stack(found).sum()

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


def _draw(weights: Tensor, noise: Tensor) -> Tensor:
    """(B,), int64: one column a row with probability in proportion to its weight; any where all are zero.

    By the largest of log weights with Gumbel noise (1411.0030, 3), which knows no order of the columns.

    Args:
        weights: (B, N), at least 0.
        noise: (B, N), evenly from 0 to 1, neither of them itself.
    """
    return (weights.double().log() - (-noise.log()).log()).argmax(dim=1)


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
