"""Matching: does this text belong to this image? Classifies fused features of matching and mismatched pairs (ALBEF).

The paper is 2107.07651, section 3.2. In training, each row gives three pairs: its own, its left side with a wrong right
side, and its right side with a wrong left side. Negatives are sampled with the probabilities of the contrastive task,
which makes them hard, mixed with uniform ones. Without that task, all are uniform. In contrast to ALBEF, they are
sampled from all rows of the step, with noise that is a function of the two rows. So micro-batches and ranks do not
change the result. In evaluation, the negative comes from a fixed other row of the batch. It is the same for any number
of ranks and every model, so runs can be compared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from mmtrain.annotations import Fraction, NonNegativeFloat
from mmtrain.layers.head import LateFusion, PooledHead
from mmtrain.layers.masking import pair_noise
from mmtrain.losses.contrastive import Related
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.types import Batch, ReportItem, View

IGNORED = -1  # target of a pair that does not count
Negatives = Literal["global", "local"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)
AT_ONCE = 2**24  # maximum number of row pairs that are processed at once


class MatchingPairs(NamedTuple):
    """Logits of matching pairs (B, 2) and mismatched pairs (N, B, 2), and which rows have a negative (B,)."""

    right: Tensor
    wrong: Tensor
    has_wrong: Tensor


class Matching(nn.Module):
    """A two-class head over the fused features.

    Args:
        dims: width by feature source.
        modalities: the two modalities of a pair.
        hard_negatives_from: name of the contrastive task whose similarities select hard negatives.
        hard_negative_ratio: fraction of hard negatives; the others are uniform. Hard negatives alone are harmful where
            they are almost correct, such as another skin tone of the same gesture.
        negatives: "global" samples negatives from all rows of the step. "local" samples from the same micro-batch and
            rank, which avoids sending or re-encoding rows, but makes the result depend on the split into batches.
        weight: see `Task`.
        dropout: dropout probability before the head.
        decides: the fusion, if it is a late fusion.

    Raises:
        ValueError: for anything but two different modalities, or for a late fusion.
    """

    reads: tuple[str, ...] = ("fused",)
    targets: tuple[str, ...] = ()
    monitor = "accuracy"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        modalities: Sequence[str],
        hard_negatives_from: str,
        hard_negative_ratio: Fraction,
        negatives: Negatives,
        weight: NonNegativeFloat,
        dropout: Fraction,
        decides: LateFusion | None = None,
    ) -> None:
        super().__init__()
        if len(modalities) != 2 or modalities[0] == modalities[1]:
            raise ValueError(
                f"modalities = {list(modalities)}; matching needs two different ones, such as [image, text]"
            )
        if decides is not None:
            raise ValueError(
                "matching compares two modalities together, but a late fusion predicts from each one alone;"
                " choose another fusion, such as fusion=cross_attn, or remove the task"
            )
        self.needs = tuple(modalities)
        if not 0.0 <= hard_negative_ratio <= 1.0:
            raise ValueError(f"hard_negative_ratio = {hard_negative_ratio}; set it to a fraction from 0 to 1")
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives = {negatives}; set it to {' or '.join(NEGATIVES)}")
        self.hard_negatives_from = hard_negatives_from
        self.negatives = negatives
        self.hard_negative_ratio = hard_negative_ratio
        self.weight = weight
        self.head = PooledHead(dims["fused"], 2, dropout=dropout)

    def forward(self, view: View) -> MatchingPairs:
        """Classify the view's own pairs and mismatched pairs of its rows, in training from all rows of the step."""
        left, right = self.needs
        step = view.batch.step
        if self.training:
            rights, lefts, has_wrong = self._drawn(view)
            replacements: list[dict[str, Tensor]] = [{right: rights}, {left: lefts}]
        else:
            rights, has_wrong = self._fixed(view.batch)
            replacements = [{right: rights}]
        paired = view.paired if step is None else partial(step.paired, view)
        return MatchingPairs(
            self._judge(view), torch.stack([self._judge(paired(places)) for places in replacements]), has_wrong
        )

    def negatives_from_global_batch(self) -> bool:
        """Return True for `negatives=global` in training; evaluation uses single batches."""
        return self.negatives == "global" and self.training

    def _judge(self, view: View) -> Tensor:
        return self.head(view.fused())

    def _allowed(self, batch: Batch, others: Batch) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Find possible negatives for chunks of rows of the batch among (N) others, if both sides exist.

        Yields (rows, right (b, N), left (b, N)), bool: negatives with the right side of the other row, and with its
        left.
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

    def _drawn(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows (B,), int64, of negative right and left sides, and (B,), bool, whether both exist."""
        batch, step = view.batch, view.batch.step
        others = batch if step is None else step.rows
        own = torch.arange(len(batch), device=batch.draws.device) if step is None else step.place()
        vectors = self._vectors(view)
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows, rights, lefts in self._allowed(batch, others):
            sides, allowed = [], (rights, lefts)
            for (asks, answers), wrong, salt in zip((self.needs, self.needs[::-1]), allowed, (1, 2), strict=True):
                similarity = None if vectors is None else vectors[0][asks][rows] @ vectors[1][answers].T
                drawn = _draw(self._chances(similarity, wrong), pair_noise(batch.draws[rows], others.draws, salt))
                sides.append(torch.where(wrong.any(dim=1), drawn, own[rows]))
            results.append((sides[0], sides[1], allowed[0].any(dim=1) & allowed[1].any(dim=1)))
        of_right, of_left, has_wrong = (torch.cat(column) for column in zip(*results, strict=True))
        return of_right, of_left, has_wrong

    def _vectors(self, view: View) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """Return by modality scaled vectors (B, D) of the batch and (N, D) of all rows, without gradient."""
        if self.hard_negatives_from not in view.model.tasks:
            return None
        own = view.predictions(self.hard_negatives_from)  # with gradient, because the view shares them with other tasks
        everyone = own if view.batch.step is None else view.batch.step.vectors(self.hard_negatives_from, own)
        scale = view.model.tasks[self.hard_negatives_from].scale.detach()
        return {m: scale * own[m].detach() for m in own}, {m: v.detach() for m, v in everyone.items()}

    def _chances(self, similarity: Tensor | None, allowed: Tensor) -> Tensor:
        """Return sampling probabilities (B, N); rows sum to 1, or to 0 without possible negatives."""
        if similarity is None:
            return _shares(allowed.float())
        hard = similarity.masked_fill(~allowed, float("-inf")).softmax(dim=1).nan_to_num(0.0)  # nothing allowed: 0
        return self.hard_negative_ratio * hard + (1.0 - self.hard_negative_ratio) * _shares(allowed.float())

    def _fixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the rows (B,), int64, of negative right sides, and (B,), bool, whether negatives exist."""
        _, rights, lefts = zip(*self._allowed(batch, batch), strict=True)
        right, left = torch.cat(rights), torch.cat(lefts)
        return _next(right), right.any(dim=1) & left.any(dim=1)

    def count(self, batch: Batch) -> Tensor:
        """Count the rows with both sides and possible negatives for both."""
        others = batch if batch.step is None else batch.step.rows
        results = [(right.any(dim=1) & left.any(dim=1)).sum() for _, right, left in self._allowed(batch, others)]
        return torch.stack(results).sum()

    def loss(self, predictions: MatchingPairs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross entropy averaged over a row's pairs: (sum over rows, number of rows)."""
        logits = torch.cat([predictions.right.unsqueeze(0), predictions.wrong])  # (1 + N, B, 2)
        truth = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)
        truth[0] = 1
        valid = predictions.has_wrong.expand(len(logits), -1)
        total, _ = cross_entropy(logits.flatten(0, 1), truth.flatten(), valid.flatten())
        return total / len(logits), predictions.has_wrong.sum()

    def metrics(self) -> MetricCollection:
        """Return accuracy and area under the ROC curve, with equally many matching and mismatched pairs."""
        accuracy, auroc = BinaryAccuracy(ignore_index=IGNORED), BinaryAUROC(ignore_index=IGNORED)
        return MetricCollection({"accuracy": accuracy, "auroc": auroc}, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: MatchingPairs, batch: Batch) -> None:
        """Add the matching and the mismatched pair of every row that has both.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        logits = torch.cat([predictions.right, predictions.wrong[0]]).float()
        counts = predictions.has_wrong.repeat(2)
        if not logits[counts].isfinite().all():
            raise FloatingPointError("matching: a logit is not finite")
        truth = torch.arange(2, device=logits.device).flip(0).repeat_interleave(len(batch))
        # all rows, also if none is valid: otherwise the metric would be out of sync with other processes
        probability = logits.softmax(dim=1)[:, 1].masked_fill(~counts, 0.0)
        metrics.update(probability, truth.masked_fill(~counts, IGNORED))

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score a random guess."""
        return {"accuracy": 0.5, "auroc": 0.5}

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return []: there is nothing to draw."""
        return []

    def rows(self, predictions: MatchingPairs, batch: Batch) -> list[dict[str, Any]]:
        """Return the probability that the row's own pair matches."""
        left, right = self.needs
        both = (batch.present[left] & batch.present[right]).tolist()
        probability = predictions.right.float().softmax(dim=1)[:, 1].tolist()
        return [{"match": round(p, 6)} if has else {} for p, has in zip(probability, both, strict=True)]


def _shares(weights: Tensor) -> Tensor:
    """Scale rows to sum 1; a row of zeros is unchanged."""
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _draw(weights: Tensor, noise: Tensor) -> Tensor:
    """Sample one column per row, (B,), int64, in proportion to the weights; arbitrary if all are zero.

    The argmax of log weights plus Gumbel noise (1411.0030, 3) does not depend on the order of the columns.

    Args:
        weights: (B, N), at least 0.
        noise: (B, N), uniform in the open interval (0, 1).
    """
    return (weights.double().log() - (-noise.log()).log()).argmax(dim=1)


def _next(allowed: Tensor) -> Tensor:
    """Return (B,), int64: for row i, the first allowed j in i + B/2, i + B/2 + 1, ... (modulo B); i if none is allowed.

    The search starts half a batch away, because tables are often sorted, so neighbours are similar.
    """
    size = len(allowed)
    order = (
        torch.arange(size, device=allowed.device).unsqueeze(1) + torch.arange(size, device=allowed.device) + size // 2
    ) % size
    first = allowed.gather(1, order).int().argmax(dim=1)
    result = order.gather(1, first.unsqueeze(1)).squeeze(1)
    return torch.where(allowed.any(dim=1), result, torch.arange(size, device=allowed.device))
