"""What makes numbers of features: one head over their mean, or one a modality whose decisions are combined."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

COMBINATIONS = ("mean_logits", "mean_probabilities", "learned", "product")


class PooledHead(nn.Module):
    """The mean of the valid tokens, a norm, a linear map.

    Args:
        dim: width of the tokens.
        num_outputs: how many numbers.
        dropout: before the linear map.
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
class Decides(Protocol):
    """A fusion at the level of decisions: its tokens are the modalities, and each is to be judged by a head of its own.

    Attributes:
        modalities: of the tokens, in order.
        decides_by: how decisions become one: one of `COMBINATIONS`.
    """

    modalities: list[str]
    decides_by: str


class DecisionHead(nn.Module):
    """One head a modality; the decisions of those that are there become one.

    mean_logits: the mean of the logits. mean_probabilities: the logarithm of the mean of the softmax. learned: a mean
    of the logits whose weights are learned, one a modality, a softmax over what is there. product: the product of the
    softmax distributions (product of experts, 10.1162/089976602760128018, eq. 1), as the sum of their logarithms.

    Args:
        decides: the fusion.
        dim: width of the tokens.
        num_outputs: how many classes.
        dropout: before each linear map.
    """

    def __init__(self, decides: Decides, dim: int, num_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.combine = decides.decides_by
        self.heads = nn.ModuleDict({m: PooledHead(dim, num_outputs, dropout=dropout) for m in decides.modalities})
        self.weights = nn.Parameter(torch.zeros(len(decides.modalities))) if self.combine == "learned" else None

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, M, dim), mask (B, M) to logits (B, num_outputs); zeros for a row without anything."""
        tokens, present = features.cleared()
        parts = zip(self.heads.values(), tokens.split(1, dim=1), present.split(1, dim=1), strict=True)
        logits = torch.stack([head(Features(token, mask)) for head, token, mask in parts], dim=1)  # (B, M, C)
        some = present.any(dim=1, keepdim=True)
        counted = (present | ~some).unsqueeze(-1)  # a row of nothing counts all, and is cleared below
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


def make_head(dim: int, num_outputs: int, *, dropout: float, decides: Decides | None) -> nn.Module:
    """The head for what a task reads: over decisions where the fusion is one of decisions."""
    if decides is None:
        return PooledHead(dim, num_outputs, dropout=dropout)
    return DecisionHead(decides, dim, num_outputs, dropout=dropout)
