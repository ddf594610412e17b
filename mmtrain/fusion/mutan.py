"""Tucker fusion with a bounded rank (MUTAN, 1705.06676, sec. 3).

    q_m = W_m x_m,   z = sum_r  (N_1^r q_1) * (N_2^r q_2) * ... * (N_M^r q_M),   y = W_o z     (* is elementwise)

This is a Tucker decomposition of the bilinear tensor with factor matrices W_m and W_o. Every slice of the core has a
rank of at most `rank`. Each map has a bias, as in the authors' code. The paper has two modalities; here the core has
one side per modality. One modality gives a linear map. A missing modality contributes a factor N_m^r q_m of ones, which
leaves the product of the others unchanged.
"""

from functools import reduce
from operator import mul

from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class Mutan(nn.Module):
    """One fused token: products in a small space, summed over the rank.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        factor_dim: width to which each modality is projected first, one side of the core.
        joint_dim: width of the products, the last side of the core.
        rank: number of products that are summed.
        dropout: dropout probability on the sum.
        missing: replaces the factors of a missing modality, see `Absent`; identity means ones.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        factor_dim: Size,
        joint_dim: Size,
        rank: Size,
        dropout: Fraction,
        missing: Missing,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.rank = rank
        self.vectors = Vectors(dims)
        self.factors = nn.ModuleDict({m: nn.Linear(dims[m], factor_dim) for m in sorted(dims)})
        self.core = nn.ModuleDict({m: nn.Linear(factor_dim, rank * joint_dim) for m in sorted(dims)})
        self.absent = Absent(dims, rank * joint_dim, missing=missing, neutral=1.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(joint_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        sides = [self.absent(m, self.core[m](self.factors[m](v)), present[m]) for m, v in vectors.items()]
        joint = reduce(mul, sides).unflatten(-1, (self.rank, -1)).sum(dim=1)
        return one_token(self.out(self.drop(joint)), present)
