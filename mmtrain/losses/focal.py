"""Focal loss (1708.02002, eq. 5) of one class a row: what is nearly certain costs next to nothing.

The paper has one class against the background; here it is the softmax over classes, and a target may be a
distribution: each class's cross entropy is damped by its own (1 - p)^gamma. With gamma = 0 it is `cross_entropy`. The
count is that of rows, with class weights, too.
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
    """The sum over the valid rows of -sum_c target_c * (1 - p_c)^gamma * log p_c, and their count.

    Args:
        logits: (B, C), floating point; float64 stays, all else becomes float32.
        targets: (B,), int64, or (B, C), floating point, a row's share of each class; anything in a row that is not
            valid.
        valid: (B,), bool.
        gamma: from 0; how much more a doubtful class counts than a certain one.
        label_smoothing: share of the target spread over all classes (1512.00567).
        weights: (C,), what a cost of each class is multiplied by; alpha of the paper.
    """
    unread = ~valid.unsqueeze(1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(unread, 0.0)
    num_classes = logits.shape[1]
    if not targets.is_floating_point():
        targets = F.one_hot(targets.masked_fill(~valid, 0), num_classes)
    shares = targets.to(logits.dtype).masked_fill(unread, 0.0) * (1.0 - label_smoothing) + label_smoothing / num_classes
    log_probability = logits.log_softmax(dim=1)
    # at p = 1 the power below 1 has no finite slope
    missed = (-log_probability.expm1()).clamp(min=torch.finfo(logits.dtype).eps)
    costs = -shares * missed.pow(gamma) * log_probability
    costs = costs if weights is None else costs * weights.to(costs.dtype)
    return costs.sum(dim=1).masked_fill(~valid, 0.0).sum(), valid.sum()
