"""Gated multimodal unit (GMU, 1702.01992, sec. 3.1): gates computed from all modalities weight their features.

    h_m = tanh(W_m x_m),   z_m = sigma(Z_m [x_1; ...; x_M]),   y = sum_m z_m * h_m     (* is elementwise, no biases)

Two modalities share one gate, as in the paper's bimodal unit: y = z * h_1 + (1 - z) * h_2, in the sorted order of
modalities. Any other number of modalities has one gate each. A single modality gates itself.

For a missing modality, the gates read a vector of zeros, and its own gate is 0, so it adds nothing to y. The gates of
the others follow from the formula with those zeros. This includes the shared gate: without the first of two modalities,
y = (1 - z) * h_2, which is not rescaled to a weight of 1. With a learned vector instead of zeros, the gates can respond
to the missing modality.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class Gated(nn.Module):
    """One fused token: the sum of the modalities' features, weighted by gates.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        dropout: dropout probability on the fused token.
        missing: replaces the gates' input for a missing modality, see `Absent`; identity means zeros.
    """

    def __init__(self, *, dims: dict[str, int], dim: Size, dropout: Fraction, missing: Missing) -> None:
        super().__init__()
        self.dim = dim
        self.modalities = sorted(dims)
        self.tied = len(dims) == 2
        self.vectors = Vectors(dims)
        self.absent = nn.ModuleDict({m: Absent([m], dims[m], missing=missing, neutral=0.0) for m in self.modalities})
        self.hidden = nn.ModuleDict({m: nn.Linear(dims[m], dim, bias=False) for m in self.modalities})
        gated = self.modalities[:1] if self.tied else self.modalities
        self.gates = nn.ModuleDict({m: nn.Linear(sum(dims.values()), dim, bias=False) for m in gated})
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        hidden = [torch.tanh(self.hidden[m](v)).masked_fill(~present[m], 0.0) for m, v in vectors.items()]
        gates = self._gates(torch.cat([self.absent[m](m, v, present[m]) for m, v in vectors.items()], dim=-1))
        return one_token(self.drop((torch.stack(gates) * torch.stack(hidden)).sum(dim=0)), present)

    def _gates(self, together: Tensor) -> list[Tensor]:
        """Map all vectors (B, sum of D_m) to one gate (B, dim) per modality."""
        gates = [torch.sigmoid(gate(together)) for gate in self.gates.values()]
        return [gates[0], 1.0 - gates[0]] if self.tied else gates
