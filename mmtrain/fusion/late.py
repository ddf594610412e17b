"""Late fusion: each modality has its own head, and the predictions of the modalities that are present are combined.

The fused tokens are one per modality, (B, M, dim), valid where the modality is present. They are never mixed. A task
that can predict from each modality alone builds one head per modality (see `mmtrain.layers.head.LateFusionHead` for the
formulas). A task that needs two modalities together, such as matching, raises an error. The number of modalities is
arbitrary. A missing modality does not contribute.
"""

import torch
from torch import nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.head import COMBINATIONS, Combination
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features


class Late(nn.Module):
    """One token per modality: the mean of its tokens, normalized, through a hidden layer.

    Args:
        dims: feature width per modality.
        dim: width of the tokens.
        dropout: dropout probability on the tokens.
        combine: mean_logits, mean_probabilities, learned or product.

    Raises:
        ValueError: for any other `combine`.
    """

    def __init__(self, *, dims: dict[str, int], dim: Size, dropout: Fraction, combine: Combination) -> None:
        super().__init__()
        if combine not in COMBINATIONS:
            raise ValueError(f"combine = {combine}; set it to {', '.join(COMBINATIONS[:-1])} or {COMBINATIONS[-1]}")
        self.dim = dim
        self.combine_method = combine
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
