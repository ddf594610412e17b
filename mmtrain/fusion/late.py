"""Fusion of decisions: each modality is judged by a head of its own, and the decisions of what is there become one.

The fused tokens are one a modality, (B, M, dim), valid where the sample has it; they never mix. A task that each
modality can decide alone builds a head a modality on them (`mmtrain.layers.head.DecisionHead` has the formulas); one
that needs two together, such as matching, refuses. Any number of modalities; one that a sample lacks has no say.
"""

import torch
from torch import nn

from mmtrain.layers.head import COMBINATIONS
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features


class Late(nn.Module):
    """One token a modality: the mean of its tokens, normalised, through a hidden layer.

    Args:
        dims: width by modality.
        dim: width of the tokens.
        dropout: of the tokens.
        combine: mean_logits, mean_probabilities, learned or product.

    Raises:
        ValueError: for another `combine`.
    """

    def __init__(self, *, dims: dict[str, int], dim: int, dropout: float, combine: str) -> None:
        super().__init__()
        if combine not in COMBINATIONS:
            raise ValueError(f"combine = {combine}; set it to {', '.join(COMBINATIONS[:-1])} or {COMBINATIONS[-1]}")
        self.dim = dim
        self.decides_by = combine
        self.modalities = sorted(dims)
        self.pool = MeanPool()
        self.hidden = nn.ModuleDict(
            {
                m: nn.Sequential(nn.LayerNorm(dims[m]), nn.Linear(dims[m], dim), nn.GELU(), nn.Dropout(dropout))
                for m in self.modalities
            }
        )

    def forward(self, features: dict[str, Features]) -> Features:
        """Map tokens (B, T_m, D_m) of every modality to (B, M, dim), in the sorted order of modalities."""
        tokens = torch.stack([self.hidden[m](self.pool(features[m])) for m in self.modalities], dim=1)
        present = torch.stack([features[m].mask.any(dim=1) for m in self.modalities], dim=1)
        return Features(tokens, present).cleared()
