"""Vision Transformers for videos: divided space-time attention (TimeSformer, 2102.05095), or factorised (ViViT).

Divided: in each block, a patch first attends to the same position in all frames, then to its own frame. Factorised
(2103.15691, model 2): blocks inside each frame, the mean of its patches, then blocks over frames. Videos may differ in
length, and valid frames never attend to padding. There is no class token, because heads use the mean of the tokens. A
patch covers one frame.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, ProperFraction, Size, WidthRatio
from mmtrain.layers.attention import SelfAttention
from mmtrain.layers.block import Block, DropPath
from mmtrain.types import Features

Attention = Literal["divided", "factorised"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)


class VideoViT(nn.Module):
    """Patches, learned positions in space and in time, blocks over both, final norm.

    Args:
        num_frames: maximum number of frames.
        image_size: height and width of a frame in pixels.
        patch_size: height and width of a patch; must divide `image_size`.
        attention: "divided" gives one token per patch and frame; "factorised" gives one token per frame.
        dim: width of the tokens.
        depth: number of blocks; for factorised, those inside a frame.
        temporal_depth: number of blocks over frames; used only by factorised.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
        drop_path: probability of stochastic depth in the last block; it grows linearly from 0 in the first.

    Raises:
        ValueError: for an unknown `attention`, a size that is not divisible, or a `temporal_depth` below 1.
    """

    def __init__(
        self,
        *,
        num_frames: Size,
        image_size: Size,
        patch_size: Size,
        attention: Attention,
        dim: Size,
        depth: Depth,
        temporal_depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
        drop_path: ProperFraction,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention = {attention}; set it to {' or '.join(ATTENTIONS)}")
        if image_size % patch_size:
            raise ValueError(
                f"image_size = {image_size} is not divisible by patch_size = {patch_size};"
                f" set patch_size to {_nearest_divisor(image_size, patch_size)}"
            )
        if attention == "factorised" and temporal_depth < 1:
            raise ValueError(f"temporal_depth = {temporal_depth} is below 1; set it to at least 1")
        self.dim = dim
        self.num_frames = num_frames
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.space_embed = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, dim))
        self.time_embed = nn.Parameter(torch.empty(1, num_frames, dim))
        self.divided = attention == "divided"
        total = depth if self.divided else depth + temporal_depth
        rates = [drop_path * i / max(total - 1, 1) for i in range(total)]
        shape = {"dim": dim, "num_heads": num_heads, "mlp_ratio": mlp_ratio, "dropout": dropout}
        kind = DividedBlock if self.divided else Block
        self.blocks = nn.ModuleList(kind(**shape, drop_path=rate) for rate in rates[:depth])  # type: ignore[arg-type]
        self.frame_norm = nn.Identity() if self.divided else nn.LayerNorm(dim, eps=1e-6)
        self.time_blocks = nn.ModuleList(Block(**shape, drop_path=rate) for rate in rates[depth:])  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._init()

    def _init(self) -> None:
        nn.init.trunc_normal_(self.space_embed, std=0.02)
        nn.init.trunc_normal_(self.time_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as in our ViT; std 0.02 suits widths near 768
                nn.init.zeros_(module.bias)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return patches with their positions, then the blocks inside frames, then the blocks over frames."""
        stem: tuple[nn.Module | nn.Parameter, ...] = (self.patch_embed, self.space_embed)
        if self.divided:
            return [(*stem, self.time_embed), *((block,) for block in self.blocks)]
        first, *others = self.time_blocks
        inside = [(block,) for block in self.blocks]
        return [stem, *inside, (self.frame_norm, self.time_embed, first), *((block,) for block in others)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode videos.

        Args:
            values: (B, F, 3, image_size, image_size), floating point, normalized; values under a False mask are
                ignored.
            mask: (B, F), bool, True where a frame is valid; None if all are.

        Returns:
            divided: tokens (B, F * P, dim), frame by frame with P patches each, and mask (B, F * P). factorised: tokens
            (B, F, dim) and mask (B, F).

        Raises:
            ValueError: if the batch has more frames than `num_frames`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        if values.shape[1] > self.num_frames:
            raise ValueError(
                f"a video has {values.shape[1]} frames, but num_frames = {self.num_frames};"
                f" use {self.num_frames} of them, or set num_frames to {values.shape[1]}"
            )
        places = self.time_embed[:, : values.shape[1]]
        x = (
            self.patch_embed(values[mask]).flatten(2).transpose(1, 2) + self.space_embed
        )  # (number of valid frames, P, D)
        if self.divided:
            return self._divided(_placed(x, mask) + places.unsqueeze(2), mask)
        for block in self.blocks:
            x = block(x)
        x = _placed(self.frame_norm(x).mean(dim=1), mask) + places  # (B, F, D)
        for block in self.time_blocks:
            x = block(x, mask)
        return Features(self.norm(x), mask)

    def _divided(self, x: Tensor, mask: Tensor) -> Features:
        for block in self.blocks:
            x = block(x, mask)
        return Features(self.norm(x).flatten(1, 2), mask.repeat_interleave(x.shape[2], dim=1))


class DividedBlock(nn.Module):
    """Attention over the frames of each patch position, then a block inside each frame (2102.05095, section 3).

    Args:
        dim: width of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
        drop_path: probability of stochastic depth: per video in time attention, per frame in space, as in the authors'
            code.
    """

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(dim, eps=1e-6)
        self.time_attn = SelfAttention(dim=dim, num_heads=num_heads)
        self.drop = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.space = Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout, drop_path=drop_path)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, F, P, D), mask (B, F) to (B, F, P, D)."""
        batch, _, patches, _ = x.shape
        lines = self.time_norm(x).transpose(1, 2).flatten(0, 1)  # (B * P, F, D)
        seen = self.time_attn(lines, mask.repeat_interleave(patches, dim=0))
        x = x + self.drop_path(self.drop(seen.unflatten(0, (batch, patches)).transpose(1, 2)))
        return self.space(x.flatten(0, 1)).unflatten(0, (batch, -1))


def _placed(x: Tensor, mask: Tensor) -> Tensor:
    """Scatter (N, ...) to the N True positions of a mask (B, F): (B, F, ...), zeros elsewhere."""
    return x.new_zeros(*mask.shape, *x.shape[1:]).masked_scatter(mask.reshape(*mask.shape, *[1] * (x.ndim - 1)), x)


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
