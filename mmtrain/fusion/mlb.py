"""Low-rank bilinear pooling by a Hadamard product (MLB, 1610.04325, sec. 3).

    y = P (s(U_1 x_1) * s(U_2 x_2) * ... * s(U_M x_M)) + b     (* is elementwise, s = tanh or identity)

The paper has two modalities; here the product takes any number. One modality gives P s(U x) + b. A missing modality
contributes a factor of ones, which leaves the product of the others unchanged.
"""

from functools import reduce
from operator import mul
from typing import Literal

from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity}


class MLB(nn.Module):
    """One fused token from the product of the modalities' projections.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        joint_dim: width of the product.
        activation: activation after each projection: tanh or linear.
        dropout: dropout probability on the product.
        missing: replaces the projection of a missing modality, see `Absent`; identity means ones.

    Raises:
        ValueError: for any other `activation`.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        joint_dim: Size,
        activation: Literal["tanh", "linear"],
        dropout: Fraction,
        missing: Missing,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation = {activation}; set it to {' or '.join(ACTIVATIONS)}")
        self.dim = dim
        self.vectors = Vectors(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], joint_dim) for m in sorted(dims)})
        self.act = ACTIVATIONS[activation]()
        self.absent = Absent(dims, joint_dim, missing=missing, neutral=1.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(joint_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.act(self.projections[m](v)), present[m]) for m, v in vectors.items()]
        return one_token(self.out(self.drop(reduce(mul, factors))), present)
