"""Area under the ROC curve and average precision of each class against the others, as scikit-learn defines them.

Up to `MAX_SCORES` scores are kept, and the areas are exact. More scores are counted in one histogram per class, which
bounds memory. The choice between both depends only on the number of scores of all ranks.

The bins are equally spaced in asinh of the log-odds: fine near 0, and proportional to the log-odds far from 0. Average
precision is then the mean over all orders of the scores within a bin. In contrast to one threshold per bin, this has no
bias.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MAX_SCORES = 2**22  # rows times classes: 32 MB in two float32 tensors
NUM_BINS = 1000
FARTHEST = 750.0  # log-odds of the outermost bins; no positive float64 has lower log-odds
CHUNK = 2**20  # number of scores that are sorted at once


class ScoreCurves(Metric):
    """Collects scores. `compute` returns both areas, each as the mean over the classes that occur.

    Args:
        num_classes: C.
        max_scores: maximum number of scores to keep; beyond it, histograms are used.
    """

    full_state_update = False
    scores: list[Tensor]
    labels: list[Tensor]
    positives: Tensor
    negatives: Tensor

    def __init__(self, *, num_classes: int, max_scores: int = MAX_SCORES) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.max_scores = max_scores
        for kind in ("scores", "labels"):
            self.add_state(kind, default=[], dist_reduce_fx="cat")
        for kind in ("positives", "negatives"):
            blank = torch.zeros(num_classes, NUM_BINS, dtype=torch.long)
            self.add_state(kind, default=blank, dist_reduce_fx="sum")

    def update(self, probability: Tensor, truth: Tensor) -> None:
        """Add rows.

        Args:
            probability: (N, C), finite, from 0 to 1; use float64 to separate values near 1.
            truth: (N,), int64, class index, or (N, C), 1 for each class of a row.
        """
        has = F.one_hot(truth, self.num_classes) if truth.ndim == 1 else truth
        # flat and float32, like torchmetrics' placeholder on a rank without batches; log-odds in float32 still separate
        # probabilities near 1
        self.scores.append(probability.double().logit().float().flatten())
        self.labels.append(has.float().flatten())
        if sum(map(len, self.scores)) > self.max_scores:
            positives, negatives = self._histograms(*self._kept())
            self.positives += positives
            self.negatives += negatives
            self.scores.clear()
            self.labels.clear()

    def compute(self) -> dict[str, Tensor]:
        """Return the class means of both areas, each with `/chance`.

        `auroc` is over classes that some rows have and others do not; it is omitted if there is none.
        `mean_average_precision` is over classes that some rows have; it is 0 if there is none.
        """
        scores, has = self._kept()
        if bool(self.positives.any() | self.negatives.any()) or scores.numel() > self.max_scores:
            positives, negatives = self._histograms(scores, has)
            areas, precisions, result, others = _areas_of_histograms(
                (self.positives + positives).double(), (self.negatives + negatives).double()
            )
        else:
            areas, precisions, result, others = _areas(scores, has)
        out: dict[str, Tensor] = {}
        both = (result > 0) & (others > 0)
        if both.any():
            out["auroc"] = areas[both].mean()
            out["auroc/chance"] = torch.full_like(out["auroc"], 0.5)
        num_classes = (result > 0).sum().clamp(min=1)  # a class without rows adds 0
        out["mean_average_precision"] = precisions.sum() / num_classes
        out["mean_average_precision/chance"] = (result / (result + others).clamp(min=1)).sum() / num_classes
        return out

    def _kept(self) -> tuple[Tensor, Tensor]:
        """Return scores and labels, (N, C), of the rows that are not in a histogram yet."""
        if not len(self.scores):
            blank = torch.zeros(0, self.num_classes, device=self.positives.device)
            return blank, blank.bool()
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        return scores.view(-1, self.num_classes), labels.view(-1, self.num_classes) > 0

    def _histograms(self, scores: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
        """Count the scores (N, C) per class and bin, for rows that have the class and for the others."""
        classes = torch.arange(self.num_classes, device=scores.device)
        bins = bin_of(scores) + classes * NUM_BINS  # (N, C)
        shape, size = self.positives.shape, self.positives.numel()
        return bins[has].bincount(minlength=size).view(shape), bins[~has].bincount(minlength=size).view(shape)


def bin_of(log_odds: Tensor) -> Tensor:
    """Return the bin index of each score, int64."""
    farthest = math.asinh(FARTHEST)
    place = (log_odds.double().clamp(-FARTHEST, FARTHEST).asinh() / farthest + 1) / 2 * NUM_BINS
    return place.long().clamp(max=NUM_BINS - 1)


def _areas(scores: Tensor, has: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return AUROC, average precision, and numbers of positive and negative rows per class, (C,); exact, with ties."""
    step = max(1, CHUNK // max(len(scores), 1))
    parts = [_areas_of_classes(s, h) for s, h in zip(scores.T.split(step), has.T.split(step), strict=True)]
    areas, precisions, result, others = (torch.cat(part) for part in zip(*parts, strict=True))
    return areas, precisions, result, others


def _areas_of_classes(scores: Tensor, has: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Like `_areas`, for scores and labels (C, N)."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    has = has.gather(1, order).double()
    place = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    changes, edge = scores[:, 1:] != scores[:, :-1], torch.ones_like(scores[:, :1], dtype=torch.bool)
    first = place.where(torch.cat([edge, changes], dim=1), 0).cummax(dim=1).values  # first index with the same score
    last = place.where(torch.cat([changes, edge], dim=1), place.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    result = has.cumsum(dim=1)
    positives, up_to = has.sum(dim=1), result.gather(1, last)
    negatives = scores.shape[1] - positives
    precisions = (has * up_to / (last + 1)).sum(dim=1) / positives.clamp(min=1)
    before = first - (result - has).gather(1, first)  # negatives with a higher score
    below = negatives.unsqueeze(1) - (before + (last + 1 - up_to)) / 2  # a tie counts half
    areas = (has * below).sum(dim=1) / (positives * negatives).clamp(min=1)
    return areas, precisions, positives, negatives


def _areas_of_histograms(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Like `_areas`, for counts per bin (C, B), float64."""
    result, others = positives.sum(dim=1), negatives.sum(dim=1)
    below = negatives.cumsum(dim=1) - negatives / 2
    areas = (positives * below).sum(dim=1) / (result * others).clamp(min=1)
    inside, size = positives.flip(1), (positives + negatives).flip(1)
    found_before, before = inside.cumsum(dim=1) - inside, size.cumsum(dim=1) - size
    # precision at position j of a bin, if it is a positive: (found_before + 1 + (j - 1) * slope) / (before + j)
    slope = (inside - 1).clamp(min=0) / (size - 1).clamp(min=1)
    harmonic = torch.digamma(before + size + 1) - torch.digamma(before + 1)  # the sum of 1 / (before + j)
    sums = slope * size + (found_before + 1 - slope - slope * before) * harmonic
    precisions = (inside / size.clamp(min=1) * sums).sum(dim=1) / result.clamp(min=1)
    return areas, precisions, result, others
