"""High-order factorized pooling (MFH, 1708.03619): a cascade of MFB blocks, each multiplied with the previous one.

    e_0 = 1,   e_i = (U_1^i x_1) * ... * (U_M^i x_M) * e_{i-1},   z_i = l2norm(signed sqrt(sum over k of e_i)),
    y = W [z_1; ...; z_p] + b     (* is elementwise)

Order p = 1 is MFB (fusion/mfb.py). The paper has two modalities; here the product takes any number. With one modality,
e_i is a product of i linear maps of x. A missing modality contributes a factor of ones in every block, which leaves the
product of the others unchanged.
"""

from functools import reduce
from itertools import accumulate
from operator import mul

import torch
from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class MFH(nn.Module):
    """One fused token from the concatenated outputs of all blocks.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        order: number of blocks, the paper's p.
        joint_dim: width of a block's pooled product.
        num_factors: how many products are summed into one number, the paper's k.
        dropout: dropout probability on each block's products, before the next block and the sum, as in the paper.
        missing: replaces the projections of a missing modality, see `Absent`; identity means ones.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        order: Size,
        joint_dim: Size,
        num_factors: Size,
        dropout: Fraction,
        missing: Missing,
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
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.projections[m](v), present[m]) for m, v in vectors.items()]
        products = self.drop(reduce(mul, factors)).unflatten(-1, (self.order, self.joint_dim, -1))
        blocks = torch.stack(list(accumulate(products.unbind(dim=1), mul)), dim=1)  # (B, order, joint_dim, k)
        return one_token(self.out(power_norm(blocks.sum(dim=-1)).flatten(1)), present)
