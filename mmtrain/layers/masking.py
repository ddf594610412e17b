"""Which items of a row are hidden: a fixed share of each row, so that how many there are is known from masks alone.

Which ones follows from a number that each row brings along (`Batch.draws`): in training another one in every epoch, in
evaluation always the same. So the same are hidden whatever the micro-batch and the rank that a row is in.
"""

import torch
from torch import Tensor


def num_hidden(allowed: Tensor, share: float) -> Tensor:
    """How many items of each row are hidden: the nearest whole number, but one at least where there is any.

    Args:
        allowed: (B, L), bool, True for an item that may be hidden.
        share: from 0 to 1.

    Returns:
        (B,), int64.
    """
    there = allowed.sum(dim=1)
    return (there * share).round().long().clamp(min=1).minimum(there)


def hidden_places(allowed: Tensor, share: float, noise: Tensor) -> Tensor:
    """The allowed items with the least noise, (B, L), bool, as many of each row as `num_hidden` says.

    Args:
        allowed: (B, L), bool.
        share: from 0 to 1.
        noise: (B, L), from 0 to 1.
    """
    if noise.is_meta:  # without content the share is what counts, see mmtrain/plan/watch.py
        return noise < share
    order = noise.masked_fill(~allowed, 2.0).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return order < num_hidden(allowed, share).unsqueeze(1)


def steady_noise(draws: Tensor, length: int, salt: int) -> Tensor:
    """(B, length), float64, evenly from 0 to 1; a function of the row's draw, the place and `salt` alone.

    Args:
        draws: (B,), int64.
        length: L.
        salt: another one gives other noise.
    """
    return pair_noise(draws, torch.arange(length, device=draws.device), salt)


def pair_noise(left: Tensor, right: Tensor, salt: int) -> Tensor:
    """(B, N), float64, evenly from 0 to 1, neither of them itself; a function of the two numbers and `salt` alone.

    Args:
        left: (B,), int64.
        right: (N,), int64.
        salt: another one gives other noise.
    """
    x = (left.unsqueeze(1) + 1) * 0x9E3779B1 + (right + 1) * 0x85EBCA6B + salt * 0x27D4EB2F
    for shift, factor in ((16, 0x7FEB352D), (15, 0x2C1B3C6D)):  # a 32-bit finaliser in 64 bits, which never overflow
        x = x & 0xFFFFFFFF
        x = (x ^ (x >> shift)) * factor
    x = x & 0xFFFFFFFF
    x = x ^ (x >> 16)
    return (x.double() + 0.5) / 2**32
