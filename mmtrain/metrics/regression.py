"""Errors and correlations of K numbers per row, over a complete split and all ranks; formulas from torchmetrics.

All rows are kept, because ranks (Spearman) and constant columns are known only at the end. Undefined values, such as
the correlation with a constant, are omitted, so NaN is never logged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, r2_score, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat


class RegressionMetric(Metric):
    """Collects scaled predictions and targets. `compute` returns each score as its mean over the K numbers.

    Args:
        std: K factors from scaled values to the units of the table.
        center: K scaled values that a constant guess predicts; None for the mean of the targets seen.
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
        """Add rows, possibly none: predictions (N, K) and targets (N, K), finite, scaled."""
        # flat and float32, like torchmetrics' placeholder on a rank without batches
        self.predictions.append(predictions.detach().float().flatten())
        self.targets.append(targets.float().flatten())

    def compute(self) -> dict[str, Tensor]:
        """Return `mae`, `rmse`, `neg_rmse` (-`rmse`), all in the units of the table, and `r2`, `pearson`, `spearman`.

        r2 is the mean over columns whose targets vary. Correlations are means over columns whose targets and
        predictions vary. Each is omitted if there is no such column. `/chance` of each is the score of a constant
        guess. The result is empty if there are no rows.
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
        # a correlation has no units: this scale avoids values that are too small for torchmetrics
        columns = [(_standard(predictions[:, k]), _standard(targets[:, k])) for k in both]
        out["pearson"] = torch.stack([pearson_corrcoef(p, t) for p, t in columns]).mean()
        out["spearman"] = torch.stack([spearman_corrcoef(p, t) for p, t in columns]).mean()
    return out


def _changes(column: Tensor) -> bool:
    return bool((column != column[0]).any())


def _standard(column: Tensor) -> Tensor:
    centered = column - column.mean()
    return centered / centered.abs().max()
