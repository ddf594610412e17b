"""Cross entropy over the labelled rows."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The sum of -log p(target) over the valid rows, and their count.

    Args:
        logits: (B, C), floating point.
        targets: (B,), int64; anything in a row that is not valid.
        valid: (B,), bool.
        label_smoothing: share of the target spread over all classes (1512.00567).
    """
    logits = logits.float().masked_fill(~valid.unsqueeze(1), 0.0)  # else a NaN there is in the gradient
    targets = targets.masked_fill(~valid, -100)
    loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none", label_smoothing=label_smoothing)
    return loss.sum(), valid.sum()
