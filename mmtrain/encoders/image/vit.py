"""Vision Transformer (2010.11929), pre-norm, with a class token; parameter names and order as in timm."""

import torch
from torch import Tensor, nn

from mmtrain.layers.block import Block
from mmtrain.types import Features


class ViT(nn.Module):
    """Patches, a class token in front, learned positions, Transformer blocks, a last norm.

    Args:
        image_size: height and width of the picture in pixels.
        patch_size: height and width of a patch; divides `image_size`.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of a block's MLP over `dim`.
        dropout: of what attention and MLP add.
        drop_path: rate of stochastic depth at the last block; it grows linearly from 0.
        layer_scale: where the factor of what attention and MLP add starts (timm's init_values); None for no factor.

    Raises:
        ValueError: when a size does not divide.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
        drop_path: float,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(
                f"image_size = {image_size} is not divisible by patch_size = {patch_size};"
                f" set patch_size to a divisor of {image_size}, such as {_nearest_divisor(image_size, patch_size)}"
            )
        self.dim = dim
        self.patch_embed = PatchEmbed(patch_size=patch_size, dim=dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, dim))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(
                dim=dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                drop_path=rate,
                layer_scale=layer_scale,
            )
            for rate in rates
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._init()

    def _init(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as the authors' code; std 0.02 is for widths near 768
                nn.init.zeros_(module.bias)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode pictures.

        Args:
            values: (B, 3, image_size, image_size), floating point, normalised.
            mask: unused; a picture has no padding.

        Returns:
            tokens (B, 1 + num_patches, dim), the class token first; every token is valid.
        """
        x = self.patch_embed(values)  # (B, num_patches, dim)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class PatchEmbed(nn.Module):
    """Cut a picture into patches and project each."""

    def __init__(self, *, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H * W / patch_size**2, dim)."""
        return self.proj(values).flatten(2).transpose(1, 2)


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
