"""The pre-norm Transformer block (2002.04745), with the parameter names of timm's ViT."""

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import SelfAttention
from mmtrain.layers.mlp import MLP


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), each with layer scale and stochastic depth.

    Args:
        dim: width of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
        drop_path: probability of stochastic depth.
        layer_scale: initial value of a learned factor per channel on the outputs of attention and MLP (2103.17239);
            None for no factor.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim=dim, num_heads=num_heads)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim=dim, hidden_dim=int(dim * mlp_ratio), dropout=dropout)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `mask` (B, T) is True where a token is valid."""
        x = x + self.drop_path(self.ls1(self.drop(self.attn(self.norm1(x), mask))))
        return x + self.drop_path(self.ls2(self.drop(self.mlp(self.norm2(x)))))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth (1603.09382): skip the branch of a sample with probability `rate`, and rescale the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ...) to (B, ...)."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype) >= self.rate
        return x * keep / (1.0 - self.rate)
