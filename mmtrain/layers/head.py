"""Prediction heads: one head on the mean of the features, or one head per modality with combined predictions."""

from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

Combination = Literal["mean_logits", "mean_probabilities", "learned", "product"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)


class PooledHead(nn.Module):
    """Mean of the valid tokens, layer norm, linear layer.

    Args:
        dim: width of the tokens.
        num_outputs: number of outputs.
        dropout: dropout probability before the linear layer.
    """

    def __init__(self, dim: int, num_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.pool = MeanPool()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, T, dim), mask (B, T) to (B, num_outputs)."""
        return self.linear(self.dropout(self.norm(self.pool(features))))


@runtime_checkable
class LateFusion(Protocol):
    """A late fusion: its tokens are the modalities, and each gets its own head.

    Attributes:
        modalities: names of the modalities, in the order of the tokens.
        combine_method: how predictions are combined, one of `COMBINATIONS`.
    """

    modalities: list[str]
    combine_method: str


class LateFusionHead(nn.Module):
    """One head per modality; the predictions of the modalities that are present are combined.

    mean_logits: mean of the logits. mean_probabilities: logarithm of the mean softmax. learned: mean of the logits with
    one learned weight per modality, normalized by a softmax over the modalities that are present. product: product of
    the softmax distributions (product of experts, 10.1162/089976602760128018, eq. 1), as a sum of log probabilities.

    Args:
        decides: the fusion.
        dim: width of the tokens.
        num_outputs: number of classes.
        dropout: dropout probability before each linear layer.
    """

    def __init__(self, decides: LateFusion, dim: int, num_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.combine = decides.combine_method
        self.heads = nn.ModuleDict({m: PooledHead(dim, num_outputs, dropout=dropout) for m in decides.modalities})
        self.weights = nn.Parameter(torch.zeros(len(decides.modalities))) if self.combine == "learned" else None

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, M, dim), mask (B, M) to logits (B, num_outputs); zeros where all modalities are missing."""
        tokens, present = features.cleared()
        parts = zip(self.heads.values(), tokens.split(1, dim=1), present.split(1, dim=1), strict=True)
        logits = torch.stack([head(Features(token, mask)) for head, token, mask in parts], dim=1)  # (B, M, C)
        some = present.any(dim=1, keepdim=True)
        counted = (present | ~some).unsqueeze(-1)  # an empty row counts all modalities; it is zeroed by the caller
        return self._combined(logits, counted).masked_fill(~some, 0.0)

    def _combined(self, logits: Tensor, counted: Tensor) -> Tensor:
        if self.combine == "mean_probabilities":
            probabilities = logits.log_softmax(dim=-1).masked_fill(~counted, float("-inf"))
            return probabilities.logsumexp(dim=1) - counted.sum(dim=1).to(logits.dtype).log()
        if self.combine == "product":
            return logits.log_softmax(dim=-1).masked_fill(~counted, 0.0).sum(dim=1)
        if self.weights is None:
            return logits.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1)
        weights = self.weights.view(1, -1, 1).masked_fill(~counted, float("-inf")).softmax(dim=1)
        return (weights * logits).sum(dim=1)


def make_head(dim: int, num_outputs: int, *, dropout: float, decides: LateFusion | None) -> nn.Module:
    """Return a `LateFusionHead` for a late fusion (`decides`), else a `PooledHead`."""
    if decides is None:
        return PooledHead(dim, num_outputs, dropout=dropout)
    return LateFusionHead(decides, dim, num_outputs, dropout=dropout)
