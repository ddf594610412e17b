"""Low-rank tensor fusion (LMF, 1806.00064, sec. 3.2): tensor fusion whose weights are a sum of `rank` products.

    y = sum_r  (W_1^r [x_1; 1]) * (W_2^r [x_2; 1]) * ... * (W_M^r [x_M; 1])     (* is elementwise)

This equals a linear map of the outer product of all [x_m; 1] (see fusion/tensor.py), without computing that product.
The number of parameters grows with the sum of the widths. The number of modalities is arbitrary, as in the paper; one
modality gives a linear map. The last column of W_m^r is the bias of a linear layer. A missing modality has a vector of
zeros, as in tensor fusion, so its factor is the bias: W_m^r [0; 1].
"""

from functools import reduce
from operator import mul

from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class LowRank(nn.Module):
    """One fused token: products of the modalities' projections, summed over the rank.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        rank: number of products that are summed.
        dropout: dropout probability on the fused token.
        missing: replaces the vector of a missing modality, see `Absent`; identity means zeros.
    """

    def __init__(self, *, dims: dict[str, int], dim: Size, rank: Size, dropout: Fraction, missing: Missing) -> None:
        super().__init__()
        self.dim = dim
        self.rank = rank
        self.vectors = Vectors(dims)
        self.absent = nn.ModuleDict({m: Absent([m], dims[m], missing=missing, neutral=0.0) for m in sorted(dims)})
        self.factors = nn.ModuleDict({m: nn.Linear(dims[m], rank * dim) for m in sorted(dims)})
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        factors = [self.factors[m](self.absent[m](m, v, present[m])) for m, v in vectors.items()]
        fused = reduce(mul, factors).unflatten(-1, (self.rank, self.dim)).sum(dim=1)
        return one_token(self.drop(fused), present)
