"""InfoNCE with any number of positives.

With one positive a row it is the loss of CLIP (2103.00020, fig. 3), one direction. With several, the target is uniform
over them (UniCL, 2204.03610, eq. 3; SupCon "out", 2004.11362, eq. 2), so that a caption shared by two pictures pulls
both and pushes neither.
"""

import torch
from torch import Tensor


def info_nce(
    queries: Tensor, keys: Tensor, positives: Tensor, *, scale: Tensor, valid_queries: Tensor, valid_keys: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy of each query's similarities against its positives.

    Args:
        queries: (Q, D), unit length.
        keys: (K, D), unit length.
        positives: (Q, K), bool, True where a key is a right answer.
        scale: scalar, the inverse temperature (not its logarithm).
        valid_queries: (Q,), bool; other rows cost nothing.
        valid_keys: (K,), bool; other columns do not stand in any denominator.

    Returns:
        The sum over the valid queries that have a valid positive, float32, and their count.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float().masked_fill(~valid_queries.unsqueeze(1), 0.0)  # else a NaN there is in every gradient
        keys = keys.float().masked_fill(~valid_keys.unsqueeze(1), 0.0)
        logits = scale.float() * queries @ keys.T
        logits = logits.masked_fill(~valid_keys, float("-inf"))
        positives = positives & valid_keys
        counted = valid_queries & positives.any(dim=1)
        logits = logits.masked_fill(~counted.unsqueeze(1), 0.0)  # a row that is not counted stays finite
        log_probability = logits.log_softmax(dim=1)
        of_positives = log_probability.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
        return -of_positives[counted].sum(), counted.sum()


def related(left: Tensor, right: Tensor, query_keys: Tensor, gallery_keys: Tensor) -> Tensor:
    """Which gallery item is a right answer to which query, known from rows that name both.

    Args:
        left: (N,), int64, the query side's content key of each known pair; 0 for none.
        right: (N,), int64, the gallery side's.
        query_keys: (Q,), int64.
        gallery_keys: (K,), int64.

    Returns:
        (Q, K), bool: some pair joins a content equal to the query's with a content equal to the gallery item's.
    """
    known = (left != 0) & (right != 0)
    is_query = (query_keys.unsqueeze(1) == left) & known  # (Q, N)
    is_gallery = (right.unsqueeze(1) == gallery_keys) & known.unsqueeze(1)  # (N, K)
    return (is_query.float() @ is_gallery.float()) > 0
