"""Fusion by concatenation: pool each modality, concatenate the vectors, mix them with an MLP.

A learned vector or zeros replace a missing modality. The number of modalities is arbitrary.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.mlp import MLP
from mmtrain.layers.pooling import MeanPool
from mmtrain.layers.vectors import MISSING, Missing
from mmtrain.types import Features


class Concat(nn.Module):
    """One fused token from the mean of each modality.

    Args:
        dims: feature width per modality; the order of its keys is the order of concatenation.
        dim: width of the fused token.
        hidden_dim: hidden width of the MLP.
        dropout: dropout probability in the MLP.
        missing: replaces a missing modality. "learned" is one learned vector per modality that starts at zeros;
            "identity" is zeros.

    Raises:
        ValueError: for any other `missing`.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: Size, hidden_dim: Size, dropout: Fraction, missing: Missing
    ) -> None:
        super().__init__()
        if missing not in MISSING:
            raise ValueError(f"missing = {missing}; set it to {' or '.join(MISSING)}")
        self.dim = dim
        self.modalities = sorted(dims)
        self.pool = MeanPool()
        self.norms = nn.ModuleDict({m: nn.LayerNorm(dims[m]) for m in self.modalities})
        self.absent: nn.ParameterDict | None = None
        if missing == "learned":
            self.absent = nn.ParameterDict({m: nn.Parameter(torch.zeros(dims[m])) for m in self.modalities})
        self.mlp = MLP(dim=sum(dims.values()), hidden_dim=hidden_dim, out_dim=dim, dropout=dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors = [self._vector(m, features[m]) for m in self.modalities]
        present = torch.stack([features[m].mask.any(dim=1) for m in self.modalities]).any(dim=0)
        return Features(self.mlp(torch.cat(vectors, dim=-1)).unsqueeze(1), present.unsqueeze(1)).cleared()

    def _vector(self, modality: str, features: Features) -> Tensor:
        present = features.mask.any(dim=1, keepdim=True)
        pooled = self.norms[modality](self.pool(features))
        if self.absent is None:
            return pooled.masked_fill(~present, 0.0)
        return torch.where(present, pooled, self.absent[modality].to(pooled.dtype))
