"""Low-rank bilinear pooling by a Hadamard product (MLB, 1610.04325, sec. 3).

    y = P (s(U_1 x_1) * s(U_2 x_2) * ... * s(U_M x_M)) + b     (* by element, s = tanh or nothing)

The paper has two modalities; the product takes any number, and one alone gives P s(U x) + b. A modality that a sample
lacks is a factor of ones, which changes nothing in the product of the others.
"""

from functools import reduce
from operator import mul

from torch import nn

from mmtrain.layers.vectors import Absent, Vectors, one_token
from mmtrain.types import Features

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity}


class MLB(nn.Module):
    """One fused token from the product of the modalities' projections.

    Args:
        dims: width by modality.
        dim: width of the fused token.
        joint_dim: width of the product.
        activation: of each projection: tanh or linear.
        dropout: of the product.
        missing: what stands for the projection of a modality that a sample lacks: see `Absent`; neutral is ones.

    Raises:
        ValueError: for another `activation`.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, joint_dim: int, activation: str, dropout: float, missing: str
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
        """Fuse tokens (B, T_m, D_m) of every modality into one token (B, 1, dim), valid where any modality is."""
        vectors, present = self.vectors(features)
        factors = [self.absent(m, self.act(self.projections[m](v)), present[m]) for m, v in vectors.items()]
        return one_token(self.out(self.drop(reduce(mul, factors))), present)
