"""Rows of equal length run together, for models that take no mask: of padding there is then nothing that could leak.

A batch of B different lengths is B runs, so this costs time where lengths differ much and none where they are equal,
as those of sounds that were cut to one length, or of films that all give the same number of frames.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.types import Features


def by_length(values: Tensor, mask: Tensor, run: Callable[[Tensor], Tensor]) -> Features:
    """Run a model on the valid values of each row, rows with equally many at a time.

    Args:
        values: (B, L, ...); what stands under a False mask never reaches `run`.
        mask: (B, L), bool, True where a value is valid, wherever that is. At least one of the batch is.
        run: maps (N, l, ...), all of it valid, to (N, t, D); t may depend on l only.

    Returns:
        tokens (B, T, D), T the longest t, zeros under a False mask; mask (B, T), all False in a row of nothing. The
        lengths are brought to the CPU.
    """
    # of a tensor without content nobody knows the lengths: all are full
    lengths = [mask.shape[1]] * len(mask) if mask.is_meta else mask.sum(dim=1).tolist()
    order: list[int] = []
    pieces: list[Tensor] = []
    counts = [0] * len(lengths)
    for length in sorted(set(lengths) - {0}, reverse=True):  # the longest first: what does not fit fails at once
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
    there = torch.arange(longest, device=values.device) < torch.tensor(counts, device=values.device)[:, None]
    return Features(tokens, there)
