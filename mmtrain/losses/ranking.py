"""Pairwise logistic loss of scores within groups (RankNet, 10.1145/1102351.1102363, with target probabilities 0 and 1).

The count is that of pairs, not rows. The sum over pairs does not depend on how groups are split into batches, except
that pairs across two batches are lost. Rows of one group with equal targets form no pair.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def ordered_pairs(truths: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Find the pairs of rows with a known order.

    Args:
        truths: (B,), higher is better; ignored in invalid rows.
        groups: (B,), int64, equal for rows that are compared.
        valid: (B,), bool.

    Returns:
        (B, B), bool: rows i and j are valid and of one group, and i has the higher target.
    """
    together = (groups.unsqueeze(1) == groups) & valid.unsqueeze(1) & valid
    return together & (truths.unsqueeze(1) > truths)


def pairwise_logistic(scores: Tensor, truths: Tensor, groups: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of log(1 + exp(score_j - score_i)) over pairs where i ranks above j, and the number of pairs.

    Args:
        scores: (B,), floating point; float64 is kept, all other dtypes become float32.
        truths: (B,), higher is better; ignored in invalid rows.
        groups: (B,), int64, equal for rows that are compared.
        valid: (B,), bool.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~valid, 0.0)
    pairs = ordered_pairs(truths, groups, valid)
    costs = -F.logsigmoid(scores.unsqueeze(1) - scores)
    return costs.masked_fill(~pairs, 0.0).sum(), pairs.sum()
