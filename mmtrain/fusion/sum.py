"""Fusion by a sum: project each modality's vector to a common width, then add or average those that are present.

    s = sum_m (W_m x_m + b_m),   y = s + MLP(norm(s))

The mean can replace the sum. The norm is only in the residual branch; a norm of s would make sum and mean equal. The
number of modalities is arbitrary. A missing modality adds zeros, without its bias, and the mean is over those present.
With `missing=learned`, a learned projection is added and counted in the mean like any other.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.mlp import MLP
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class Sum(nn.Module):
    """One fused token from the sum or the mean of the modalities' projections.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        average: if True, take the mean of the projections instead of their sum.
        hidden_dim: hidden width of the MLP.
        dropout: dropout probability in the MLP.
        missing: replaces the projection of a missing modality, see `Absent`; identity means zeros.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        average: bool,
        hidden_dim: Size,
        dropout: Fraction,
        missing: Missing,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.average = average
        self.vectors = Vectors(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in sorted(dims)})
        self.absent = Absent(dims, dim, missing=missing, neutral=0.0)
        self.norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim=dim, hidden_dim=hidden_dim, dropout=dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        parts = [self.absent(m, self.projections[m](v), present[m]) for m, v in vectors.items()]
        joint = self._pool(torch.stack(parts, dim=1), torch.cat(list(present.values()), dim=1))
        return one_token(joint + self.mlp(self.norm(joint)), present)

    def _pool(self, parts: Tensor, present: Tensor) -> Tensor:
        """Map (B, M, dim), presence (B, M) to (B, dim)."""
        if not self.average:
            return parts.sum(dim=1)
        if self.absent.learned is not None:
            return parts.mean(dim=1)
        return parts.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)
