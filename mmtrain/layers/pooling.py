"""Pooling of tokens to one vector."""

import torch
from torch import Tensor, nn

from mmtrain.types import Features


class MeanPool(nn.Module):
    """The mean of the valid tokens; zeros if there are none."""

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, T, D), mask (B, T) to (B, D)."""
        tokens, mask = features.cleared()
        return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


class FirstPool(nn.Module):
    """The first valid token, such as a class token; zeros if there is none."""

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, T, D), mask (B, T) to (B, D)."""
        tokens, mask = features.cleared()
        first = mask.int().argmax(dim=1)
        return tokens[torch.arange(len(tokens), device=tokens.device), first]


class LastPool(nn.Module):
    """The last valid token, such as the end of a left-to-right text; zeros if there is none."""

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, T, D), mask (B, T) to (B, D)."""
        tokens, mask = features.cleared()
        last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
        return tokens[torch.arange(len(tokens), device=tokens.device), last]


POOLS: dict[str, type[nn.Module]] = {"class": FirstPool, "mean": MeanPool, "last": LastPool}


def make_pool(name: str) -> nn.Module:
    """Build the pooling module for a name: class, mean or last.

    Raises:
        ValueError: for any other name.
    """
    if name not in POOLS:
        raise ValueError(f"pooling = {name}; set it to {', '.join(list(POOLS)[:-1])} or {list(POOLS)[-1]}")
    return POOLS[name]()
