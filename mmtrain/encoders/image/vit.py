"""Vision Transformer (2010.11929), pre-norm, with a class token; parameter names and order match timm's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, NonNegativeInt, PositiveFloat, ProperFraction, Size, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.layers.color_features import ColorFeatures
from mmtrain.layers.pretrained import load_weights, read_weights, resized_grid
from mmtrain.types import Features

# weights for `pretrained: true`, by width
PUBLISHED = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}


class ViT(nn.Module):
    """Patches, a class token, learned positions, Transformer blocks, final norm.

    Args:
        image_size: height and width of the image in pixels.
        patch_size: height and width of a patch; must divide `image_size`.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
        drop_path: probability of stochastic depth in the last block; it grows linearly from 0 in the first.
        layer_scale: initial value of the factor on the outputs of attention and MLP (timm's init_values); None for
            none.
        color_features: number of `ColorFeatures` waves that are added to each patch token; 0 for none, as in the paper.
        pretrained: True for timm's ViT of this width, a timm name, or a weights file in timm's names; None for random
            weights. Positions are resized to the image. A file does not contain its num_heads.

    Raises:
        ValueError: if a size is not divisible, or if the weights cannot be loaded or do not fit.
    """

    def __init__(
        self,
        *,
        image_size: Size,
        patch_size: Size,
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
        drop_path: ProperFraction,
        layer_scale: PositiveFloat | None,
        color_features: NonNegativeInt,
        pretrained: bool | str | None,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(
                f"image_size = {image_size} is not divisible by patch_size = {patch_size};"
                f" set patch_size to a divisor of {image_size}, such as {_nearest_divisor(image_size, patch_size)}"
            )
        self.dim = dim
        self.patch_size = patch_size
        self.num_patches = (image_size // patch_size) ** 2
        self.timm_options: dict[str, Any] | None = {  # for timm's equivalent VisionTransformer
            "img_size": image_size,
            "patch_size": patch_size,
            "embed_dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "init_values": layer_scale,
            "num_classes": 0,
            "global_pool": "token",
        }
        if color_features:
            self.timm_options = None
        self.patch_embed = PatchEmbed(patch_size=patch_size, dim=dim, color_features=color_features)
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
        if pretrained:
            if color_features:
                raise ValueError(
                    f"color_features = {color_features}, but pretrained = {pretrained} has no such weights;"
                    " set color_features to 0, or pretrained to null"
                )
            self._load(_source(pretrained, dim), num_heads, image_size // patch_size)

    def _load(self, source: str, num_heads: int, side: int) -> None:
        weights = read_weights(source) if _is_file(source) else _weights_of_timm(source, num_heads)
        if "pos_embed" in weights:
            try:
                weights["pos_embed"] = resized_grid(weights["pos_embed"], (side, side), num_prefix=1)
            except ValueError as error:
                raise ValueError(f"pretrained = {source} does not fit: {error}") from error
        load_weights(self, weights, name=source, ignore=("head.", "fc_norm."))

    @classmethod
    def preprocessing(cls, *, pretrained: bool | str | None, dim: int) -> dict[str, Any]:
        """Return the image preprocessing of the weights; {} for a file, which does not contain it."""
        if not pretrained:
            return {}
        source = _source(pretrained, dim)
        if _is_file(source):
            return {}
        from mmtrain.layers.timm_model import timm_preprocessing

        return timm_preprocessing(source)

    def export(self, folder: Path) -> str | None:
        """Write the model as timm's VisionTransformer, and return code that loads it; None with `color_features`."""
        if self.timm_options is None:
            return None
        from mmtrain.layers.timm_model import export_timm

        return export_timm(self, PUBLISHED[192], self.timm_options, folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return patches with class token and positions, then the blocks."""
        return [(self.patch_embed, self.cls_token, self.pos_embed), *((block,) for block in self.blocks)]

    def _init(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as in the authors' code; std 0.02 suits widths near 768
                nn.init.zeros_(module.bias)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, image_size, image_size), floating point, normalized.
            mask: None; or (B, num_patches), bool, True for patches to encode, equally many per row.

        Returns:
            tokens (B, 1 + number of encoded patches, dim), class token first; all are valid.
        """
        x = self.patch_embed(values)  # (B, num_patches, dim)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        if mask is not None:
            seen = x[:, 1:][mask].unflatten(0, (len(x), -1))
            x = torch.cat([x[:, :1], seen], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class PatchEmbed(nn.Module):
    """Split an image into patches and project each; optionally add a projection of its colours."""

    def __init__(self, *, patch_size: int, dim: int, color_features: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.colors: nn.Module | None = None
        if color_features:
            waves = ColorFeatures(num_features=color_features, patch_size=patch_size)
            self.colors = nn.Sequential(waves, nn.Linear(color_features, dim))

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H * W / patch_size**2, dim)."""
        x = self.proj(values).flatten(2).transpose(1, 2)
        return x if self.colors is None else x + self.colors(values)


def _source(pretrained: bool | str, dim: int) -> str:
    """Return the file or the timm name for `pretrained`."""
    if isinstance(pretrained, str):
        return pretrained
    if dim not in PUBLISHED:
        widths = ", ".join(f"{width} ({name})" for width, name in PUBLISHED.items())
        raise ValueError(
            f"pretrained = true, but no ViT of timm has dim = {dim}; they have {widths};"
            " set dim to one of them, or pretrained to a name or a file"
        )
    return PUBLISHED[dim]


def _is_file(source: str) -> bool:
    return "/" in source or Path(source).suffix in (".safetensors", ".pth", ".pt", ".bin") or Path(source).is_file()


def _weights_of_timm(name: str, num_heads: int) -> dict[str, Tensor]:
    from mmtrain.layers.timm_model import timm_model  # timm takes seconds to import; random weights do not need it

    net: Any = timm_model(name, pretrained=True, options={})
    if "blocks.0.attn.qkv.weight" in net.state_dict() and net.blocks[0].attn.num_heads != num_heads:
        raise ValueError(
            f"num_heads = {num_heads}, but pretrained = {name} has {net.blocks[0].attn.num_heads};"
            f" set num_heads to {net.blocks[0].attn.num_heads}"
        )
    return dict(net.state_dict())


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
