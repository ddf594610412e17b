"""Pictures mixed in pairs, and how much of each: mixup (1710.09412) and CutMix (1905.04899).

Both draw the share of the first picture from Beta(alpha, alpha), once for a batch, and the partners anew.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """What came of it.

    Attributes:
        values: (B, ..., H, W).
        partner: (B,), int64, the row that each is mixed with; a row that takes no part is its own.
        share: how much of a row is itself.
    """

    values: Tensor
    partner: Tensor
    share: float


def mix_pictures(values: Tensor, rows: Tensor, *, mixup: float, cutmix: float) -> Mixture:
    """Mix some rows among themselves; with both kinds, one of them a batch, as likely.

    Args:
        values: (B, ..., H, W), floating point.
        rows: (B,), bool, those that take part.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
    """
    chosen = rows.nonzero().squeeze(1)
    partner = torch.arange(len(rows), device=rows.device)
    partner[chosen] = chosen[torch.randperm(len(chosen)).to(chosen.device)]
    cuts = cutmix > 0 and (mixup == 0 or bool(torch.rand(()) < 0.5))
    alpha = torch.tensor(cutmix if cuts else mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    others = values[partner]
    if not cuts:
        return Mixture(torch.where(_like(rows, values), share * values + (1 - share) * others, values), partner, share)
    height, width = values.shape[-2:]
    top, bottom, left, right = _box(height, width, share)
    inside = torch.zeros(height, width, dtype=torch.bool, device=values.device)
    inside[top:bottom, left:right] = True
    share = 1.0 - (bottom - top) * (right - left) / (height * width)
    return Mixture(torch.where(inside & _like(rows, values), others, values), partner, share)


def _like(rows: Tensor, values: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (values.ndim - 1))


def _box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of 1 - share of the area, around an even centre, cut at the edge."""
    side = math.sqrt(1.0 - share)
    y, x = (int(torch.randint(size, ())) for size in (height, width))
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return max(y - half_y, 0), min(y + half_y, height), max(x - half_x, 0), min(x + half_x, width)
