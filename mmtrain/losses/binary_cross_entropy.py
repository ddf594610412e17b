"""Binary cross entropy for multi-label rows: each class is a separate binary decision.

The loss of a row is the mean over its classes, so it does not scale with their number. A row counts once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, *, positive_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the sum over valid rows of the class mean of -t log p - (1 - t) log(1 - p), and the number of rows.

    Args:
        logits: (B, C), floating point; float64 is kept, all other dtypes become float32.
        targets: (B, C), floating point, from 0 to 1; ignored in invalid rows.
        valid: (B,), bool.
        positive_weights: (C,), factor of t log p per class.
    """
    unread = ~valid.unsqueeze(1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(unread, 0.0)
    targets = targets.to(logits.dtype).masked_fill(unread, 0.0)
    weights = None if positive_weights is None else positive_weights.to(logits.dtype)
    costs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    return costs.mean(dim=1).masked_fill(~valid, 0.0).sum(), valid.sum()
