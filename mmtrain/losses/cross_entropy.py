"""Cross entropy over the labelled rows, against a class or a distribution over classes.

With class weights, the sum is over weighted losses, and the count is still the number of rows, not of weights. So
`count` follows from the masks alone, and the split into batches and ranks does not change a row's weight. Weights with
mean 1 over the rows keep the scale of the loss.
"""

from torch import Tensor
from torch.nn import functional as F

from mmtrain.layers.autocast import upcast


def cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the sum of -log p(target) over valid rows, and their number.

    Args:
        logits: (B, C), floating point.
        targets: (B,), int64, or (B, C), floating point, the probability of each class; ignored in invalid rows.
        valid: (B,), bool.
        label_smoothing: fraction of the target that is spread over all classes (1512.00567).
        weights: (C,), factor of the loss per class.
    """
    logits = upcast(logits).masked_fill(~valid.unsqueeze(1), 0.0)  # otherwise a NaN there would reach the gradient
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
