"""Images mixed in pairs: mixup (1710.09412) and CutMix (1905.04899).

Both draw the fraction of the first image from Beta(alpha, alpha), once per batch. The pairs are drawn anew per batch.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """Result of mixing.

    Attributes:
        values: (B, ..., H, W).
        partner: (B,), int64, the row that each row is mixed with; an unmixed row is its own partner.
        share: weight of the row itself; the partner has the rest.
    """

    values: Tensor
    partner: Tensor
    share: float


def mix_pictures(values: Tensor, rows: Tensor, *, mixup: float, cutmix: float) -> Mixture:
    """Mix some rows with each other. If both methods are on, each batch uses one of them, with equal probability.

    Args:
        values: (B, ..., H, W), floating point.
        rows: (B,), bool, True for rows that are mixed.
        mixup: alpha of mixup; 0 disables it.
        cutmix: alpha of CutMix; 0 disables it.
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
    """Return top, bottom, left, right of a box of 1 - share of the area, with random centre, clipped at the edges."""
    side = math.sqrt(1.0 - share)
    y, x = (int(torch.randint(size, ())) for size in (height, width))
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return max(y - half_y, 0), min(y + half_y, height), max(x - half_x, 0), min(x + half_x, width)
