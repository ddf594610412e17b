"""Pairwise logistic loss of scores within groups (RankNet, 10.1145/1102351.1102363, of certain orders).

What is counted is pairs, not rows: the sum over pairs is the same however groups fall into batches, and a group that is
cut loses the pairs across the cut and nothing else. Rows of one group with equal truths make no pair.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def ordered_pairs(truths: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Which row belongs above which.

    Args:
        truths: (B,), higher is better; anything in a row that is not valid.
        groups: (B,), int64, equal for rows that are compared.
        valid: (B,), bool.

    Returns:
        (B, B), bool: row i and row j are valid, of one group, and i has the higher truth.
    """
    together = (groups.unsqueeze(1) == groups) & valid.unsqueeze(1) & valid
    return together & (truths.unsqueeze(1) > truths)


def pairwise_logistic(scores: Tensor, truths: Tensor, groups: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of log(1 + exp(score_j - score_i)) over the pairs in which i belongs above j, and their count.

    Args:
        scores: (B,), floating point; float64 stays, all else becomes float32.
        truths: (B,), higher is better; anything in a row that is not valid.
        groups: (B,), int64, equal for rows that are compared.
        valid: (B,), bool.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~valid, 0.0)
    pairs = ordered_pairs(truths, groups, valid)
    costs = -F.logsigmoid(scores.unsqueeze(1) - scores)
    return costs.masked_fill(~pairs, 0.0).sum(), pairs.sum()
