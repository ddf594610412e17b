"""Errors and correlations of K numbers a row, over a whole split and over all ranks; torchmetrics has the formulas.

All rows are kept, because ranks (Spearman) and constant numbers are only known at the end. What is not defined, such as
the correlation with a number that never changes, is left out, and so no NaN is ever logged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, r2_score, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat


class RegressionMetric(Metric):
    """Collects scaled predictions and targets; `compute` gives each score as its mean over the numbers.

    Args:
        std: K, the units of the table in one unit of what is shown.
        center: K, what guessing says in scaled units; None for the mean of the targets that were shown.
    """

    full_state_update = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self, *, std: Sequence[float], center: Sequence[float] | None) -> None:
        super().__init__()
        self.std = tuple(std)
        self.center = None if center is None else tuple(center)
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add rows, also none: predictions (N, K) and targets (N, K), finite, scaled."""
        # flat and float32, as is what torchmetrics puts in place for a rank that was never shown a batch
        self.predictions.append(predictions.detach().float().flatten())
        self.targets.append(targets.float().flatten())

    def compute(self) -> dict[str, Tensor]:
        """`mae`, `rmse` and `neg_rmse`, which is -`rmse`, in the units of the table; `r2`, `pearson`, `spearman`.

        r2 is the mean over the numbers that change among the targets, a correlation over those that change among the
        predictions as well; each is not there when there is no such number. `/chance` beside each is the score of
        guessing. Empty when no row was shown.
        """
        if not len(self.targets) or not len(dim_zero_cat(self.targets)):
            return {}
        shown = (dim_zero_cat(kept).double().view(-1, len(self.std)) for kept in (self.predictions, self.targets))
        predictions, targets = shown
        center = targets.mean(dim=0) if self.center is None else targets.new_tensor(self.center)
        guessed = _scores(center.expand_as(targets), targets, targets.new_tensor(self.std))
        out = _scores(predictions, targets, targets.new_tensor(self.std))
        chance = guessed | {name: targets.new_zeros(()) for name in ("pearson", "spearman")}
        return out | {f"{name}/chance": chance[name] for name in out}


def _scores(predictions: Tensor, targets: Tensor, std: Tensor) -> dict[str, Tensor]:
    errors = predictions - targets
    rmse = (errors.square().mean(dim=0).sqrt() * std).mean()
    out = {"mae": (errors.abs().mean(dim=0) * std).mean(), "rmse": rmse, "neg_rmse": -rmse}
    changing = [k for k in range(len(std)) if _changes(targets[:, k])]
    both = [k for k in changing if _changes(predictions[:, k])]
    if changing:
        out["r2"] = torch.stack([r2_score(predictions[:, k], targets[:, k]) for k in changing]).mean()
    if both:
        # a correlation has no units: at this scale none of them is too small for torchmetrics
        columns = [(_standard(predictions[:, k]), _standard(targets[:, k])) for k in both]
        out["pearson"] = torch.stack([pearson_corrcoef(p, t) for p, t in columns]).mean()
        out["spearman"] = torch.stack([spearman_corrcoef(p, t) for p, t in columns]).mean()
    return out


def _changes(column: Tensor) -> bool:
    return bool((column != column[0]).any())


def _standard(column: Tensor) -> Tensor:
    centered = column - column.mean()
    return centered / centered.abs().max()
