"""Multiplicative interactions (MI, Jayakumar et al., ICLR 2020, "Multiplicative Interactions and Where to Find Them").

    f(x, z) = z^T W x + U z + V x + b     (eq. 2, W with three sides)

The paper has two inputs. With more, each pair has its own product, and each modality has one linear term:

    y = sum_{m < n} (P_m x_m)^T W_mn (P_n x_n) + sum_m U_m x_m + b

For a subset of the modalities, y is the formula of that subset; one modality is linear. The projections P have no bias
and apply only before W, to limit its size and rank. The linear terms read the full vectors. A missing modality is a
vector of zeros: its products vanish, and the linear terms of the others remain. W has dim * d_m * d_n weights per pair,
so their number is checked before any layer is built.
"""

import math
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, PositiveInt, Size
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class Multiplicative(nn.Module):
    """One fused token: a bilinear form per pair of modalities plus a linear term per modality.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        factor_dim: width to which each modality is projected before the products; None keeps the modality's width.
        dropout: dropout probability on the fused token.
        missing: replaces the vector of a missing modality, see `Absent`; identity means zeros.
        max_size: maximum number of weights in the products of all pairs.

    Raises:
        ValueError: if the products would have more than `max_size` weights.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        factor_dim: Size | None,
        dropout: Fraction,
        missing: Missing,
        max_size: PositiveInt,
    ) -> None:
        super().__init__()
        widths = {m: dims[m] if factor_dim is None else factor_dim for m in sorted(dims)}
        check_size(widths, dim, max_size)
        self.dim = dim
        self.pairs = list(combinations(widths, 2))
        self.vectors = Vectors(dims)
        self.absent = nn.ModuleDict({m: Absent([m], dims[m], missing=missing, neutral=0.0) for m in widths})
        self.linear = nn.Linear(sum(dims.values()), dim)  # all U_m concatenated, and b
        self.factors = nn.ModuleDict()
        if self.pairs and factor_dim is not None:
            self.factors.update({m: nn.Linear(dims[m], factor_dim, bias=False) for m in widths})
        self.products = nn.ModuleDict({f"{m}*{n}": Bilinear(widths[m], widths[n], dim) for m, n in self.pairs})
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        vectors = {m: self.absent[m](m, v, present[m]) for m, v in vectors.items()}
        fused = self.linear(torch.cat(list(vectors.values()), dim=-1))
        factors = vectors | {m: factor(vectors[m]) for m, factor in self.factors.items()}
        for m, n in self.pairs:
            fused = fused + self.products[f"{m}*{n}"](factors[m], factors[n])
        return one_token(self.drop(fused), present)


class Bilinear(nn.Module):
    """A bilinear form per output number, initialized for output variance 1 given inputs of variance 1."""

    def __init__(self, left_dim: int, right_dim: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, left_dim, right_dim) * (left_dim * right_dim) ** -0.5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map (B, left_dim) and (B, right_dim) to (B, dim)."""
        return torch.einsum("bi,oij,bj->bo", left, self.weight, right)


def check_size(widths: Mapping[str, int], dim: int, max_size: int) -> None:
    """Check that the products do not exceed the maximum number of weights.

    Raises:
        ValueError: with the number of weights, and the largest `factor_dim` that fits, if any.
    """
    pairs = list(combinations(widths.values(), 2))
    size = dim * sum(left * right for left, right in pairs)
    if size <= max_size:
        return
    fitting = math.isqrt(max_size // (dim * len(pairs)))
    advice = f"set factor_dim to {fitting} or less" if fitting >= 1 else "raise max_size"
    modalities = ", ".join(f"{m} ({width})" for m, width in widths.items())
    raise ValueError(
        f"the products of the pairs of {modalities} would have {size:.1e} weights with dim = {dim},"
        f" but max_size = {max_size}; {advice}, or choose fusion=low_rank"
    )
