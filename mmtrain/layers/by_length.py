"""Batches grouped by length, for models without a mask: rows of equal length run together, so no padding is needed.

A batch with B different lengths needs B forward passes. The cost is high if lengths differ much, and zero if they are
equal, as for audio cropped to one length or videos with the same number of frames.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.types import Features


def by_length(values: Tensor, mask: Tensor, run: Callable[[Tensor], Tensor]) -> Features:
    """Run a model on the valid values of each row, in groups of rows of equal length.

    Args:
        values: (B, L, ...); values under a False mask never reach `run`.
        mask: (B, L), bool, True where a value is valid, at any position. At least one value in the batch must be valid.
        run: maps (N, l, ...), all valid, to (N, t, D); t may depend on l only.

    Returns:
        tokens (B, T, D) with T the largest t, zeros under a False mask; mask (B, T), all False for an empty row. The
        lengths are copied to the CPU.
    """
    # meta tensors have no values to count, so all rows count as full
    lengths = [mask.shape[1]] * len(mask) if mask.is_meta else mask.sum(dim=1).tolist()
    order: list[int] = []
    pieces: list[Tensor] = []
    counts = [0] * len(lengths)
    for length in sorted(set(lengths) - {0}, reverse=True):  # longest first, so an out-of-memory error occurs early
        rows = [row for row, there in enumerate(lengths) if there == length]
        tokens = run(values[rows][mask[rows]].unflatten(0, (len(rows), length)))
        order += rows
        pieces.append(tokens)
        for row in rows:
            counts[row] = tokens.shape[1]
    assert pieces, "a batch without a single valid value"
    longest = max(counts)
    together = torch.cat([F.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens in pieces])
    places = torch.tensor(order, device=values.device)
    tokens = together.new_zeros(len(lengths), *together.shape[1:]).index_copy(0, places, together)
    present = torch.arange(longest, device=values.device) < torch.tensor(counts, device=values.device)[:, None]
    return Features(tokens, present)
