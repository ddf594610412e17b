"""Fusion by a sum: each modality's vector is projected to one width, and what is there is added or averaged.

    s = sum_m (W_m x_m + b_m),   y = s + MLP(norm(s))

or the mean in the place of the sum. The norm is in the residual branch alone: around s it would make sum and mean the
same. Any number of modalities. For a modality that a sample lacks zeros are added, not even its bias, and the mean is
over what is there; a learned projection is added, and counted in the mean, like any other.
"""

import torch
from torch import Tensor, nn

from mmtrain.layers.mlp import MLP
from mmtrain.layers.vectors import Absent, Vectors, one_token
from mmtrain.types import Features


class Sum(nn.Module):
    """One fused token from the sum or the mean of the modalities' projections.

    Args:
        dims: width by modality.
        dim: width of the fused token.
        average: the mean of the projections, not their sum.
        hidden_dim: hidden width of the MLP.
        dropout: in the MLP.
        missing: what stands for the projection of a modality that a sample lacks: see `Absent`; neutral is zeros.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, average: bool, hidden_dim: int, dropout: float, missing: str
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
        """Fuse tokens (B, T_m, D_m) of every modality into one token (B, 1, dim), valid where any modality is."""
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
