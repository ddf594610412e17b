"""Factorized bilinear pooling (MFB, 1708.01471, eq. 3).

    z = sum over k of  (U_1 x_1) * (U_2 x_2) * ... * (U_M x_M),   y = W l2norm(signed sqrt(z)) + b     (* by element)

The products are joint_dim * k wide; each number of z is the sum of k neighbours. The paper has two modalities; the
product takes any number, and with one alone z is linear in x. A modality that a sample lacks is a factor of ones, which
changes nothing in the product of the others.
"""

from functools import reduce
from operator import mul

from torch import nn

from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Vectors, one_token
from mmtrain.types import Features


class MFB(nn.Module):
    """One fused token from products, each a sum over a few factors.

    Args:
        dims: width by modality.
        dim: width of the fused token.
        joint_dim: width of the pooled product.
        num_factors: how many products are summed into one number, the paper's k.
        dropout: of the products, before they are summed, as in the paper.
        missing: what stands for the projection of a modality that a sample lacks: see `Absent`; neutral is ones.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, joint_dim: int, num_factors: int, dropout: float, missing: str
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
        """Fuse tokens (B, T_m, D_m) of every modality into one token (B, 1, dim), valid where any modality is."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.projections[m](v), present[m]) for m, v in vectors.items()]
        products = self.drop(reduce(mul, factors)).unflatten(-1, (self.joint_dim, -1))  # (B, joint_dim, k)
        return one_token(self.out(power_norm(products.sum(dim=-1))), present)
