"""Cross entropy over the labelled rows, against a class or a distribution over classes.

With class weights the sum is of weighted costs and the count is still that of rows, not of weights: so `count` is known
from masks alone, and how rows fall into batches and ranks weighs none differently. Weights whose mean over the rows is
1 leave the loss at its scale.
"""

from torch import Tensor
from torch.nn import functional as F

from mmtrain.precision import full


def cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of -log p(target) over the valid rows, and their count.

    Args:
        logits: (B, C), floating point.
        targets: (B,), int64, or (B, C), floating point, a row's share of each class; anything in a row that is not
            valid.
        valid: (B,), bool.
        label_smoothing: share of the target spread over all classes (1512.00567).
        weights: (C,), what a cost of each class is multiplied by.
    """
    logits = full(logits).masked_fill(~valid.unsqueeze(1), 0.0)  # else a NaN there is in the gradient
    weights = None if weights is None else weights.to(logits.dtype)
    if targets.is_floating_point():
        shares = targets.to(logits.dtype).masked_fill(~valid.unsqueeze(1), 0.0)
        loss = F.cross_entropy(logits, shares, weight=weights, reduction="none", label_smoothing=label_smoothing)
        return loss.masked_fill(~valid, 0.0).sum(), valid.sum()
    targets = targets.masked_fill(~valid, -100)
    loss = F.cross_entropy(
        logits, targets, weight=weights, ignore_index=-100, reduction="none", label_smoothing=label_smoothing
    )
    return loss.sum(), valid.sum()
