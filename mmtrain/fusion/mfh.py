"""High-order factorized pooling (MFH, 1708.03619): blocks of MFB in a row, each multiplied with the one before.

    e_0 = 1,   e_i = (U_1^i x_1) * ... * (U_M^i x_M) * e_{i-1},   z_i = l2norm(signed sqrt(sum over k of e_i)),
    y = W [z_1; ...; z_p] + b     (* by element)

Order p = 1 is MFB (fusion/mfb.py). The paper has two modalities; the product takes any number, and with one alone e_i
is a product of i linear maps of x. A modality that a sample lacks is a factor of ones in every block, which changes
nothing in the product of the others.
"""

from functools import reduce
from itertools import accumulate
from operator import mul

import torch
from torch import nn

from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Vectors, one_token
from mmtrain.types import Features


class MFH(nn.Module):
    """One fused token from the products of one, two, ... blocks side by side.

    Args:
        dims: width by modality.
        dim: width of the fused token.
        order: number of blocks, the paper's p.
        joint_dim: width of a block's pooled product.
        num_factors: how many products are summed into one number, the paper's k.
        dropout: of each block's products, before they are handed on and summed, as in the paper.
        missing: what stands for the projections of a modality that a sample lacks: see `Absent`; neutral is ones.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        order: int,
        joint_dim: int,
        num_factors: int,
        dropout: float,
        missing: str,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.order = order
        self.joint_dim = joint_dim
        width = order * joint_dim * num_factors
        self.vectors = Vectors(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], width) for m in sorted(dims)})
        self.absent = Absent(dims, width, missing=missing, neutral=1.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(order * joint_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality into one token (B, 1, dim), valid where any modality is."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.projections[m](v), present[m]) for m, v in vectors.items()]
        products = self.drop(reduce(mul, factors)).unflatten(-1, (self.order, self.joint_dim, -1))
        blocks = torch.stack(list(accumulate(products.unbind(dim=1), mul)), dim=1)  # (B, order, joint_dim, k)
        return one_token(self.out(power_norm(blocks.sum(dim=-1)).flatten(1)), present)
