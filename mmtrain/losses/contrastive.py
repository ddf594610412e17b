"""InfoNCE and the pairwise sigmoid loss, with any number of positives, in chunks.

With one positive per row, InfoNCE is one direction of the CLIP loss (2103.00020, fig. 3). With several, the target is
uniform over them (UniCL, 2204.03610, eq. 3; SupCon "out", 2004.11362, eq. 2), so a caption of two images is a positive
for both. The sigmoid loss (SigLIP, 2303.15343, eq. 1) classifies each pair separately as matching or not.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmtrain.layers.autocast import full_precision, upcast


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
    """Compute the cross entropy of each query's similarities against its positives.

    Args:
        queries: (Q, D), unit length.
        keys: (K, D), unit length.
        positives: (Q, K), bool, True where a key is a positive.
        scale: scalar, the inverse temperature (not its logarithm).
        valid_queries: (Q,), bool; other rows have no loss.
        valid_keys: (K,), bool; other columns are excluded from every denominator.
        ignored: (Q, K), bool; columns that are neither positives nor negatives of a query.

    Returns:
        The sum over valid queries with a valid positive, float32 or float64, and their number.
    """
    with full_precision(queries):
        queries, keys = _cleared(queries, valid_queries), _cleared(keys, valid_keys)
        logits = upcast(scale) * queries @ keys.T
        unread = ~valid_keys if ignored is None else ~valid_keys | ignored
        logits = logits.masked_fill(unread, float("-inf"))
        positives = positives & ~unread
        counted = valid_queries & positives.any(dim=1)
        logits = logits.masked_fill(~counted.unsqueeze(1), 0.0)  # keeps uncounted rows finite
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
    """Compute the binary cross entropy of every pair, summed over the pairs of a query.

    Args:
        queries: as in `info_nce`.
        keys: as in `info_nce`.
        positives: as in `info_nce`.
        scale: as in `info_nce`.
        bias: scalar, added to every logit.
        valid_queries: as in `info_nce`.
        valid_keys: as in `info_nce`.
        ignored: as in `info_nce`.

    Returns:
        The sum over valid queries, float32 or float64, and their number.
    """
    with full_precision(queries):
        queries, keys = _cleared(queries, valid_queries), _cleared(keys, valid_keys)
        logits = upcast(scale) * queries @ keys.T + upcast(bias)
        costs = -F.logsigmoid(torch.where(positives, logits, -logits))
        unread = ~valid_keys if ignored is None else ~valid_keys | ignored
        return costs.masked_fill(unread | ~valid_queries.unsqueeze(1), 0.0).sum(), valid_queries.sum()


def _cleared(vectors: Tensor, valid: Tensor) -> Tensor:
    return upcast(vectors).masked_fill(~valid.unsqueeze(1), 0.0)  # otherwise a NaN there would reach every gradient


class Related:
    """The positives of each query in the gallery, from rows that contain both.

    Memory for N rows, K items and a chunk of Q queries is Q (N + K); there is no (N, K) tensor.

    Args:
        left: (N,), int64, content key of the query side of each known pair; 0 for none.
        right: (N,), int64, content key of the gallery side.
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

        True where a known pair connects a content equal to the query's with a content equal to the gallery item's.
        """
        asks = ((query_keys.unsqueeze(1) == self.left) & self.known).float()  # (Q, N)
        joined = asks.new_zeros(len(query_keys), self.num_contents).index_add(1, self.of_pair, asks) > 0
        return joined[:, self.of_item]


def by_chunks(
    block: Callable[..., tuple[Tensor, Tensor]], rows: tuple[Tensor, ...], *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum a loss over its queries in chunks. The backward pass recomputes each chunk.

    Memory grows linearly with the number of queries, not quadratically.

    Args:
        block: (sum, count) for the same slice of each of `rows`.
        rows: (Q, ...) each.
        chunk: number of queries per chunk.
    """
    if len(rows[0]) <= chunk:
        return block(*rows)
    sums, counts = [], []
    for part in zip(*(row.split(chunk) for row in rows), strict=True):
        total, count = checkpoint(block, *part, use_reentrant=False, preserve_rng_state=False)
        sums.append(total)
        counts.append(count)
    return torch.stack(sums).sum(), torch.stack(counts).sum()
