"""Which items of a row are masked: a fixed fraction of each row, so that the number follows from the masks alone.

The choice depends on a number that each row brings (`Batch.draws`). It changes every epoch in training and is constant
in evaluation. So the choice does not depend on the micro-batch or the rank of a row.
"""

import torch
from torch import Tensor


def num_hidden(allowed: Tensor, share: float) -> Tensor:
    """Return how many items of each row are masked: rounded to the nearest integer, but at least one if any is allowed.

    Args:
        allowed: (B, L), bool, True for an item that may be masked.
        share: fraction to mask, from 0 to 1.

    Returns:
        (B,), int64.
    """
    num_allowed = allowed.sum(dim=1)
    return (num_allowed * share).round().long().clamp(min=1).minimum(num_allowed)


def hidden_places(allowed: Tensor, share: float, noise: Tensor) -> Tensor:
    """Select the allowed items with the least noise: (B, L), bool, `num_hidden` items per row.

    Args:
        allowed: (B, L), bool.
        share: fraction to mask, from 0 to 1.
        noise: (B, L), from 0 to 1.
    """
    if noise.is_meta:  # meta tensors have no values: only the fraction matters, see mmtrain/modes/plan/watch.py
        return noise < share
    order = noise.masked_fill(~allowed, 2.0).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return order < num_hidden(allowed, share).unsqueeze(1)


def steady_noise(draws: Tensor, length: int, salt: int) -> Tensor:
    """Return noise (B, length), float64, uniform in (0, 1), as a function of the row's draw, the position and `salt`.

    Args:
        draws: (B,), int64.
        length: L.
        salt: a different salt gives different noise.
    """
    return pair_noise(draws, torch.arange(length, device=draws.device), salt)


def pair_noise(left: Tensor, right: Tensor, salt: int) -> Tensor:
    """Return noise (B, N), float64, uniform in the open interval (0, 1), as a function of both numbers and `salt`.

    Args:
        left: (B,), int64.
        right: (N,), int64.
        salt: a different salt gives different noise.
    """
    x = (left.unsqueeze(1) + 1) * 0x9E3779B1 + (right + 1) * 0x85EBCA6B + salt * 0x27D4EB2F
    for shift, factor in ((16, 0x7FEB352D), (15, 0x2C1B3C6D)):  # a 32-bit finalizer in 64 bits, which cannot overflow
        x = x & 0xFFFFFFFF
        x = (x ^ (x >> shift)) * factor
    x = x & 0xFFFFFFFF
    x = x ^ (x >> 16)
    return (x.double() + 0.5) / 2**32
