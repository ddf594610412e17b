"""Factorized bilinear pooling (MFB, 1708.01471, eq. 3).

    z = sum over k of  (U_1 x_1) * (U_2 x_2) * ... * (U_M x_M),   y = W l2norm(signed sqrt(z)) + b     (* is
    elementwise)

The products have a width of joint_dim * k; each number of z is the sum of k adjacent ones. The paper has two
modalities; here the product takes any number. With one modality, z is linear in x. A missing modality contributes a
factor of ones, which leaves the product of the others unchanged.
"""

from functools import reduce
from operator import mul

from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class MFB(nn.Module):
    """One fused token from products that are sum-pooled over `num_factors` numbers.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        joint_dim: width of the pooled product.
        num_factors: how many products are summed into one number, the paper's k.
        dropout: dropout probability on the products, before the sum, as in the paper.
        missing: replaces the projection of a missing modality, see `Absent`; identity means ones.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        joint_dim: Size,
        num_factors: Size,
        dropout: Fraction,
        missing: Missing,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.joint_dim = joint_dim
        width = joint_dim * num_factors
        self.vectors = Vectors(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], width) for m in sorted(dims)})
        self.absent = Absent(dims, width, missing=missing, neutral=1.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(joint_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.projections[m](v), present[m]) for m, v in vectors.items()]
        products = self.drop(reduce(mul, factors)).unflatten(-1, (self.joint_dim, -1))  # (B, joint_dim, k)
        return one_token(self.out(power_norm(products.sum(dim=-1))), present)
