"""A resampler: a few learned latents attend to the media tokens (Flamingo, 2204.14198, fig. 5).

    z = z + attention(norm(z), norm'([x; z])),   z = z + MLP(norm(z)),   then a linear map

The language model gets a fixed number of tokens for input of any length.
"""

import torch
from torch import nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.streams import CrossBlock, check_counts
from mmtrain.types import Features


class PerceiverConnector(nn.Module):
    """Latents that attend to all tokens and to each other.

    Args:
        in_dim: width of the encoder's tokens, also the width of the latents.
        dim: width of the language model.
        num_latents: number of latents, and of output tokens.
        depth: number of layers.
        num_heads: number of attention heads; must divide `in_dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `in_dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `num_latents` or `depth` is below 1, or if `num_heads` does not divide `in_dim`.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: Size,
        num_latents: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"num_latents": num_latents, "depth": depth})
        self.latents = nn.Parameter(torch.randn(num_latents, in_dim) * 0.02)
        self.layers = nn.ModuleList(
            CrossBlock(dim=in_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(in_dim)
        self.proj = nn.Linear(in_dim, dim)

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to (B, num_latents, dim), valid where any token is valid."""
        tokens, mask = features.cleared()
        z = self.latents.expand(len(tokens), -1, -1)
        some = mask.any(dim=1, keepdim=True).expand(-1, len(self.latents))
        for layer in self.layers:
            z = layer(z, torch.cat([tokens, z], dim=1), torch.cat([mask, some], dim=1))
        return Features(self.proj(self.norm(z)), some)
