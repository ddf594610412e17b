"""Pairwise accuracy and NDCG at 10 of scores within groups, over a complete split and all ranks.

Equal scores count as half correct in a pair and share their positions in NDCG (as in torchmetrics), so a constant score
gives the chance level.
"""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.retrieval import retrieval_normalized_dcg
from torchmetrics.utilities import dim_zero_cat

TOP = 10
ROUNDING = 1e-5  # rounding error of float32, relative to the largest gain


class RankingMetric(Metric):
    """Collects scores, targets and group keys.

    Args:
        mean: added to a target, after multiplication with `std`, to give its gain.
        std: factor from the scale of the targets to that of the gains.
        chunk: number of rows of a group that are compared with the complete group at once.
    """

    full_state_update = False
    scores: list[Tensor]
    truths: list[Tensor]
    groups: list[Tensor]

    def __init__(self, *, mean: float, std: float, chunk: int = 1024) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.chunk = chunk
        for kind in ("scores", "truths", "groups"):
            self.add_state(kind, default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, truths: Tensor, groups: Tensor) -> None:
        """Add rows, possibly none: scores (N,) and truths (N,), finite, and groups (N,), int64."""
        # all states are float32, like torchmetrics' placeholder on a rank without batches; keys are stored bitwise
        self.scores.append(scores.detach().float())
        self.truths.append(truths.float())
        self.groups.append(groups.view(torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """Return `pairwise_accuracy` over all pairs with different targets, and `ndcg@10` over groups with such a pair.

        Gains are targets in the units of the table; NDCG is omitted if one is negative. `/chance` of each is the mean
        over all orders. The result is empty if there is no pair.
        """
        if not len(self.truths) or not len(dim_zero_cat(self.truths)):
            return {}
        scores, truths = dim_zero_cat(self.scores).double(), dim_zero_cat(self.truths).double()
        groups = dim_zero_cat(self.groups).view(torch.int64)
        order = groups.argsort(stable=True)
        sizes = groups[order].unique_consecutive(return_counts=True)[1].tolist()
        parts = zip(scores[order].split(sizes), truths[order].split(sizes), strict=True)
        ranked = [(s, t) for s, t in parts if (t != t[0]).any()]
        if not ranked:
            return {}
        right, pairs = torch.stack([self._pairs(s, t) for s, t in ranked]).sum(dim=0)
        out = {"pairwise_accuracy": right / pairs, "pairwise_accuracy/chance": torch.full_like(right, 0.5)}
        gains = [t * self.std + self.mean for _, t in ranked]
        if min(g.min() for g in gains) >= -ROUNDING * max(g.abs().max() for g in gains):
            gains = [g.clamp(min=0.0) for g in gains]
            results = [retrieval_normalized_dcg(s, t, top_k=TOP) for (s, _), t in zip(ranked, gains, strict=True)]
            guessed = [retrieval_normalized_dcg(torch.zeros_like(t), t, top_k=TOP) for t in gains]
            out |= {f"ndcg@{TOP}": torch.stack(results).mean(), f"ndcg@{TOP}/chance": torch.stack(guessed).mean()}
        return out

    def _pairs(self, scores: Tensor, truths: Tensor) -> Tensor:
        """Return (2,): the number of correctly ordered pairs of a group, ties counting half, and of all pairs."""
        sums = scores.new_zeros(2)
        for s, t in zip(scores.split(self.chunk), truths.split(self.chunk), strict=True):
            above = t.unsqueeze(1) > truths
            difference = s.unsqueeze(1) - scores
            right = (above & (difference > 0)).sum() + (above & (difference == 0)).sum() / 2
            sums = sums + torch.stack([right, above.sum().to(right.dtype)])
        return sums
