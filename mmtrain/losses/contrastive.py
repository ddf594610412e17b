"""InfoNCE and the pairwise sigmoid loss, with any number of positives, in chunks.

With one positive a row InfoNCE is the loss of CLIP (2103.00020, fig. 3), one direction. With several, the target is
uniform over them (UniCL, 2204.03610, eq. 3; SupCon "out", 2004.11362, eq. 2), so that a caption shared by two pictures
pulls both and pushes neither. The sigmoid loss (SigLIP, 2303.15343, eq. 1) asks of each pair alone whether it belongs
together.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmtrain.precision import full, full_precision


def info_nce(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    *,
    scale: Tensor,
    valid_queries: Tensor,
    valid_keys: Tensor,
    ignored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of each query's similarities against its positives.

    Args:
        queries: (Q, D), unit length.
        keys: (K, D), unit length.
        positives: (Q, K), bool, True where a key is a right answer.
        scale: scalar, the inverse temperature (not its logarithm).
        valid_queries: (Q,), bool; other rows cost nothing.
        valid_keys: (K,), bool; other columns do not stand in any denominator.
        ignored: (Q, K), bool; columns that are neither right nor wrong for a query.

    Returns:
        The sum over the valid queries that have a valid positive, float32 or float64, and their count.
    """
    with full_precision(queries):
        queries, keys = _cleared(queries, valid_queries), _cleared(keys, valid_keys)
        logits = full(scale) * queries @ keys.T
        unread = ~valid_keys if ignored is None else ~valid_keys | ignored
        logits = logits.masked_fill(unread, float("-inf"))
        positives = positives & ~unread
        counted = valid_queries & positives.any(dim=1)
        logits = logits.masked_fill(~counted.unsqueeze(1), 0.0)  # a row that is not counted stays finite
        log_probability = logits.log_softmax(dim=1)
        of_positives = log_probability.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
        return -of_positives[counted].sum(), counted.sum()


def pairwise_sigmoid(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    *,
    scale: Tensor,
    bias: Tensor,
    valid_queries: Tensor,
    valid_keys: Tensor,
    ignored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of every pair; the sum over a query's pairs.

    Args:
        queries: as those of `info_nce`, and so are keys, positives, scale, valid_queries, valid_keys and ignored.
        keys: see there.
        positives: see there.
        scale: see there.
        bias: scalar, added to every logit.
        valid_queries: see there.
        valid_keys: see there.
        ignored: see there.

    Returns:
        The sum over the valid queries, float32 or float64, and their count.
    """
    with full_precision(queries):
        queries, keys = _cleared(queries, valid_queries), _cleared(keys, valid_keys)
        logits = full(scale) * queries @ keys.T + full(bias)
        costs = -F.logsigmoid(torch.where(positives, logits, -logits))
        unread = ~valid_keys if ignored is None else ~valid_keys | ignored
        return costs.masked_fill(unread | ~valid_queries.unsqueeze(1), 0.0).sum(), valid_queries.sum()


def _cleared(vectors: Tensor, valid: Tensor) -> Tensor:
    return full(vectors).masked_fill(~valid.unsqueeze(1), 0.0)  # else a NaN there is in every gradient


class Related:
    """Which gallery item is a right answer to which query, known from rows that name both.

    Memory for N rows, K items and a chunk of Q queries is Q (N + K): no (N, K) stands anywhere.

    Args:
        left: (N,), int64, the query side's content key of each known pair; 0 for none.
        right: (N,), int64, the gallery side's.
        gallery_keys: (K,), int64.
    """

    def __init__(self, left: Tensor, right: Tensor, gallery_keys: Tensor) -> None:
        self.left = left
        self.known = (left != 0) & (right != 0)
        contents, places = torch.cat([right, gallery_keys]).unique(return_inverse=True)
        self.num_contents = len(contents)
        self.of_pair, self.of_item = places[: len(right)], places[len(right) :]

    def __call__(self, query_keys: Tensor) -> Tensor:
        """Map keys (Q,), int64, to (Q, K), bool.

        True where some pair joins a content equal to the query's with a content equal to the gallery item's.
        """
        asks = ((query_keys.unsqueeze(1) == self.left) & self.known).float()  # (Q, N)
        joined = asks.new_zeros(len(query_keys), self.num_contents).index_add(1, self.of_pair, asks) > 0
        return joined[:, self.of_item]


def by_chunks(
    block: Callable[..., tuple[Tensor, Tensor]], rows: tuple[Tensor, ...], *, chunk: int
) -> tuple[Tensor, Tensor]:
    """The sums of a loss over its queries, a chunk at a time; the backward pass computes each chunk again.

    Memory then grows with the number of queries and not with its square.

    Args:
        block: (sum, count) for the same slice of each of `rows`.
        rows: (Q, ...) each.
        chunk: queries at once.
    """
    if len(rows[0]) <= chunk:
        return block(*rows)
    sums, counts = [], []
    for part in zip(*(row.split(chunk) for row in rows), strict=True):
        total, count = checkpoint(block, *part, use_reentrant=False, preserve_rng_state=False)
        sums.append(total)
        counts.append(count)
    return torch.stack(sums).sum(), torch.stack(counts).sum()
