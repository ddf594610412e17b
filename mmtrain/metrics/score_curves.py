"""Area under the ROC curve and average precision of each class against the others, from histograms of scores.

Unusual here: scores are counted in bins that are even in log-odds, so that the states of batches and ranks add and a
class of probability 1e-4 is told from one of 1e-6; scores in one bin are tied (half right). The binned metrics of
torchmetrics take even steps of probability, count anew for each of them (at 1000 classes some thirty times the time),
and let a class that does not occur score 0.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

NUM_BINS = 400
FARTHEST = 20.0  # log-odds of the outermost bins: a probability of 2e-9


class ScoreCurves(Metric):
    """Collects histograms; `compute` gives both areas, each the mean over the classes that occur.

    Args:
        num_classes: C.
    """

    full_state_update = False
    positives: Tensor
    negatives: Tensor

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for kind in ("positives", "negatives"):
            blank = torch.zeros(num_classes, NUM_BINS, dtype=torch.long)
            self.add_state(kind, default=blank, dist_reduce_fx="sum")

    def update(self, probability: Tensor, truth: Tensor) -> None:
        """Add rows.

        Args:
            probability: (N, C), finite, from 0 to 1; float64 keeps those near 1 apart.
            truth: (N,), int64, the class, or (N, C), 1 for each class that a row has.
        """
        has = F.one_hot(truth, self.num_classes).bool() if truth.ndim == 1 else truth.bool()
        classes = torch.arange(self.num_classes, device=has.device)
        bins = bin_of(probability) + classes * NUM_BINS  # (N, C)
        shape, size = self.positives.shape, self.positives.numel()
        self.positives += bins[has].bincount(minlength=size).view(shape)
        self.negatives += bins[~has].bincount(minlength=size).view(shape)

    def compute(self) -> dict[str, Tensor]:
        """Areas averaged over classes, and `/chance` beside each.

        `auroc` is over the classes that some rows have and some lack, and not there without one;
        `mean_average_precision` is over those that some have, and 0 without one.
        """
        positives, negatives = self.positives.double(), self.negatives.double()
        num_positives, num_negatives = positives.sum(dim=1), negatives.sum(dim=1)
        out: dict[str, Tensor] = {}
        both = (num_positives > 0) & (num_negatives > 0)
        if both.any():
            below = negatives.cumsum(dim=1) - negatives / 2  # a tie is half right
            areas = (positives * below).sum(dim=1)[both] / (num_positives * num_negatives)[both]
            out["auroc"] = areas.mean()
            out["auroc/chance"] = torch.full_like(out["auroc"], 0.5)
        some = num_positives > 0
        found, said = positives.flip(1).cumsum(dim=1), (positives + negatives).flip(1).cumsum(dim=1)
        precisions = (positives.flip(1) * found / said.clamp(min=1)).sum(dim=1) / num_positives.clamp(min=1)
        shares = num_positives / (num_positives + num_negatives).clamp(min=1)
        num_classes = some.sum().clamp(min=1)  # a class that no row has adds 0
        out["mean_average_precision"] = precisions.sum() / num_classes
        out["mean_average_precision/chance"] = shares.sum() / num_classes
        return out


def bin_of(probability: Tensor) -> Tensor:
    """The bin of each probability, int64, by its log-odds."""
    place = (probability.logit() + FARTHEST) / (2 * FARTHEST) * NUM_BINS
    return place.clamp(0, NUM_BINS - 1).long()
