"""Token streams, one per modality, that attend to each other; the attention fusions use them.

`Read` and `FeedForward` return the residual branch only, pre-norm (2002.04745), so a fusion can apply a gate or a mean
to it. `CrossBlock` adds both to its input, like a Transformer decoder layer (1706.03762, fig. 1).
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
    """Tokens of each modality, projected to one width, plus a learned modality embedding.

    Args:
        dims: feature width per modality.
        dim: common width.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in sorted(dims)})
        self.kinds = nn.ParameterDict({m: nn.Parameter(torch.randn(dim) * 0.02) for m in sorted(dims)})

    def forward(self, features: Mapping[str, Features]) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D_m) to (B, T_m, dim), by modality in sorted order. Finite under a False mask."""
        return {m: layer(features[m].cleared().tokens) + self.kinds[m] for m, layer in self.projections.items()}


class Read(nn.Module):
    """A cross-attention branch: dropout(attention(norm(x), norm(context))); zeros without valid context."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim=dim, num_heads=num_heads)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, dim) to (B, T, dim), attending to `context` (B, K, dim) where `mask` (B, K) is True."""
        return self.drop(self.attn(self.norm(x), self.norm_context(context), mask))

    def weights(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the attention weights from each token to the context, (B, T, K)."""
        return self.attn.weights(self.norm(x), self.norm_context(context), mask)


class FeedForward(nn.Module):
    """A feed-forward branch: dropout(mlp(norm(x)))."""

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
        """Map (B, T, dim) to (B, T, dim), attending to `context` (B, K, dim) where `mask` (B, K) is True."""
        x = x + self.read(x, context, mask)
        return x + self.feed(x)


def block_weights(block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Return the self-attention weights (B, T, T) of a `Block` for its input tokens (B, T, dim)."""
    block = cast(Block, block)
    return block.attn.weights(block.norm1(x), mask)


def cross_weights(block: nn.Module, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-attention weights (B, T, K) of a `CrossBlock` for its input tokens (B, T, dim)."""
    return cast(CrossBlock, block).read.weights(x, context, mask)


def lengths(tokens: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of tokens of each stream (B, T, dim), in order."""
    return {name: x.shape[1] for name, x in tokens.items()}


def any_valid(masks: Mapping[str, Tensor]) -> Tensor:
    """Return (B, 1), bool: whether a sample has a valid token in any stream, from masks (B, T_m)."""
    return torch.cat(list(masks.values()), dim=1).any(dim=1, keepdim=True)


def check_counts(counts: Mapping[str, int]) -> None:
    """Check that counts are at least 1.

    Raises:
        ValueError: with the name of the first count below 1.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} = {count}; set {name} to 1 or more")
