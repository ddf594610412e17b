"""Streams of tokens, one a modality, that read each other: what the attention fusions share.

`Read` and `FeedForward` give what is to be added to their input, pre-norm (2002.04745), so that a fusion can put a gate
or a mean in between; `CrossBlock` adds the two, as the layer of a Transformer's decoder does (1706.03762, fig. 1).
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import CrossAttention
from mmtrain.layers.block import Block
from mmtrain.layers.mlp import MLP
from mmtrain.types import Features


class Streams(nn.Module):
    """Each modality's tokens at one width, plus a vector learned for its kind.

    Args:
        dims: width by modality.
        dim: the width that all get.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in sorted(dims)})
        self.kinds = nn.ParameterDict({m: nn.Parameter(torch.randn(dim) * 0.02) for m in sorted(dims)})

    def forward(self, features: Mapping[str, Features]) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D_m) to (B, T_m, dim), by modality in sorted order; finite under a False mask."""
        return {m: layer(features[m].cleared().tokens) + self.kinds[m] for m, layer in self.projections.items()}


class Read(nn.Module):
    """What cross-attention gives to a stream: dropout(attention(norm(x), norm(context))); zeros without context."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim=dim, num_heads=num_heads)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, dim), reading `context` (B, K, dim) where `mask` (B, K) is True, to (B, T, dim)."""
        return self.drop(self.attn(self.norm(x), self.norm_context(context), mask))

    def weights(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """How much each token reads of each of the context, (B, T, K)."""
        return self.attn.weights(self.norm(x), self.norm_context(context), mask)


class FeedForward(nn.Module):
    """What an MLP gives to a stream: dropout(mlp(norm(x)))."""

    def __init__(self, *, dim: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim=dim, hidden_dim=int(dim * mlp_ratio), dropout=dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        return self.drop(self.mlp(self.norm(x)))


class CrossBlock(nn.Module):
    """x + read(x, context), then x + feed_forward(x)."""

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.read = Read(dim=dim, num_heads=num_heads, dropout=dropout)
        self.feed = FeedForward(dim=dim, mlp_ratio=mlp_ratio, dropout=dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, dim), reading `context` (B, K, dim) where `mask` (B, K) is True, to (B, T, dim)."""
        x = x + self.read(x, context, mask)
        return x + self.feed(x)


def block_weights(block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """How much each token (B, T, dim) that enters a `Block` reads of each in its self-attention, (B, T, T)."""
    block = cast(Block, block)
    return block.attn.weights(block.norm1(x), mask)


def cross_weights(block: nn.Module, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """How much each token (B, T, dim) that enters a `CrossBlock` reads of each of the context, (B, T, K)."""
    return cast(CrossBlock, block).read.weights(x, context, mask)


def lengths(tokens: Mapping[str, Tensor]) -> dict[str, int]:
    """How many tokens (B, T, dim) each stream has, in their order."""
    return {name: x.shape[1] for name, x in tokens.items()}


def anything(masks: Mapping[str, Tensor]) -> Tensor:
    """Whether a sample has a token in any of the streams, by their masks (B, T_m): (B, 1), bool."""
    return torch.cat(list(masks.values()), dim=1).any(dim=1, keepdim=True)


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuse a number of something that has to be there.

    Raises:
        ValueError: with its name.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} = {count}; set {name} to 1 or more")
