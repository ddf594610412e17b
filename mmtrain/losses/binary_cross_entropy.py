"""Binary cross entropy of several classes a row: each is a question of its own.

A row costs the mean over its classes, so that the number of classes does not set the scale, and counts once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, valid: Tensor, *, positive_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum over the valid rows of the mean over classes of -t log p - (1 - t) log(1 - p), and their count.

    Args:
        logits: (B, C), floating point; float64 stays, all else becomes float32.
        targets: (B, C), floating point, from 0 to 1; anything in a row that is not valid.
        valid: (B,), bool.
        positive_weights: (C,), what t log p of each class is multiplied by.
    """
    unread = ~valid.unsqueeze(1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(unread, 0.0)
    targets = targets.to(logits.dtype).masked_fill(unread, 0.0)
    weights = None if positive_weights is None else positive_weights.to(logits.dtype)
    costs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    return costs.mean(dim=1).masked_fill(~valid, 0.0).sum(), valid.sum()
