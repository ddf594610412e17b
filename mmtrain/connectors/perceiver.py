"""A resampler: a few learned latents read a medium (Flamingo, 2204.14198, fig. 5).

    z = z + attention(norm(z), norm'([x; z])),   z = z + MLP(norm(z)),   then a linear map

As many tokens go into the language model, whatever the length of the medium.
"""

import torch
from torch import nn

from mmtrain.layers.streams import CrossBlock, check_counts
from mmtrain.types import Features


class PerceiverConnector(nn.Module):
    """Latents that read all tokens and each other.

    Args:
        in_dim: width of the encoder's tokens, and of the latents.
        dim: width of the language model.
        num_latents: how many there are.
        depth: number of layers.
        num_heads: attention heads, divides `in_dim`.
        mlp_ratio: hidden width of an MLP over `in_dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for no latents, no layers, or heads that do not divide the width.
    """

    def __init__(
        self, *, in_dim: int, dim: int, num_latents: int, depth: int, num_heads: int, mlp_ratio: float, dropout: float
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
        """Map tokens (B, T, in_dim), mask (B, T) to (B, num_latents, dim), valid where there is any token."""
        tokens, mask = features.cleared()
        z = self.latents.expand(len(tokens), -1, -1)
        some = mask.any(dim=1, keepdim=True).expand(-1, len(self.latents))
        for layer in self.layers:
            z = layer(z, torch.cat([tokens, z], dim=1), torch.cat([mask, some], dim=1))
        return Features(self.proj(self.norm(z)), some)
