"""Tensor fusion (TFN, 1707.07250, sec. 4.2): the outer product of all modalities' vectors, each with a 1 appended.

    z = [x_1; 1] (x) [x_2; 1] (x) ... (x) [x_M; 1],   y = MLP(z)

The appended 1 keeps the products of fewer modalities, down to each vector alone. The paper has three modalities; here
the number is arbitrary. With one modality, z is [x; 1]. A missing modality has a vector of zeros: its [0; 1] leaves
exactly the product of the others in z. The size of z is prod(d_m + 1), so it is checked before any layer is built.
"""

import math
from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.annotations import Fraction, PositiveInt, Size
from mmtrain.layers.mlp import MLP
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class TensorFusion(nn.Module):
    """One fused token from all products of one entry per modality, where the appended 1 counts as an entry.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        factor_dim: width to which each modality is projected before the product; None keeps the modality's width.
        hidden_dim: hidden width of the MLP that reads the product.
        dropout: dropout probability in the MLP.
        missing: replaces a missing modality, see `Absent`; identity means zeros.
        max_size: maximum size of the product for one sample.

    Raises:
        ValueError: if the product would be larger than `max_size`.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        factor_dim: Size | None,
        hidden_dim: Size,
        dropout: Fraction,
        missing: Missing,
        max_size: PositiveInt,
    ) -> None:
        super().__init__()
        widths = {m: dims[m] if factor_dim is None else factor_dim for m in sorted(dims)}
        check_size(widths, max_size)
        self.dim = dim
        self.vectors = Vectors(dims)
        self.factors = nn.ModuleDict(
            {m: nn.Identity() if factor_dim is None else nn.Linear(dims[m], factor_dim) for m in widths}
        )
        self.absent = nn.ModuleDict(
            {m: Absent([m], width, missing=missing, neutral=0.0) for m, width in widths.items()}
        )
        self.mlp = MLP(dim=product_size(widths), hidden_dim=hidden_dim, out_dim=dim, dropout=dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        factors = [self.absent[m](m, self.factors[m](v), present[m]) for m, v in vectors.items()]
        product = reduce(outer, [F.pad(factor, (0, 1), value=1.0) for factor in factors])
        return one_token(self.mlp(product), present)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Map (B, D) and (B, E) to all pairwise products, (B, D * E)."""
    return (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)


def product_size(widths: Mapping[str, int]) -> int:
    """Return the number of entries of the outer product."""
    return math.prod(width + 1 for width in widths.values())


def check_size(widths: Mapping[str, int], max_size: int) -> None:
    """Check that the outer product does not exceed the maximum size.

    Raises:
        ValueError: with the size, and the largest `factor_dim` that fits, if any.
    """
    size = product_size(widths)
    if size <= max_size:
        return
    root = round(max_size ** (1 / len(widths)))
    fitting = root - 1 if root ** len(widths) <= max_size else root - 2
    advice = f"set factor_dim to {fitting} or less" if fitting >= 1 else "raise max_size"
    modalities = ", ".join(f"{m} ({width})" for m, width in widths.items())
    raise ValueError(
        f"the tensor of {modalities} would have {size:.1e} numbers a sample, but max_size = {max_size};"
        f" {advice}, or choose fusion=low_rank"
    )
