"""Focal loss (1708.02002, eq. 5) for one class per row: confident predictions have almost no loss.

The paper has one class against the background. Here it is a softmax over classes, and a target may be a distribution:
the cross entropy of each class has its own factor (1 - p)^gamma. With gamma = 0 it equals `cross_entropy`. The count is
the number of rows, also with class weights.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def focal(
    logits: Tensor,
    targets: Tensor,
    valid: Tensor,
    *,
    gamma: float,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum over valid rows of -sum_c target_c * (1 - p_c)^gamma * log p_c, and their number.

    Args:
        logits: (B, C), floating point; float64 is kept, all other dtypes become float32.
        targets: (B,), int64, or (B, C), floating point, the probability of each class; ignored in invalid rows.
        valid: (B,), bool.
        gamma: 0 or more; a larger value reduces the loss of confident predictions more.
        label_smoothing: fraction of the target that is spread over all classes (1512.00567).
        weights: (C,), factor of the loss per class; alpha in the paper.
    """
    unread = ~valid.unsqueeze(1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(unread, 0.0)
    num_classes = logits.shape[1]
    if not targets.is_floating_point():
        targets = F.one_hot(targets.masked_fill(~valid, 0), num_classes)
    shares = targets.to(logits.dtype).masked_fill(unread, 0.0) * (1.0 - label_smoothing) + label_smoothing / num_classes
    log_probability = logits.log_softmax(dim=1)
    # at p = 1, a power below 1 has an infinite slope
    missed = (-log_probability.expm1()).clamp(min=torch.finfo(logits.dtype).eps)
    costs = -shares * missed.pow(gamma) * log_probability
    costs = costs if weights is None else costs * weights.to(costs.dtype)
    return costs.sum(dim=1).masked_fill(~valid, 0.0).sum(), valid.sum()
