"""Videos frame by frame: an image encoder on each frame, then the mean, a GRU or a Transformer over time.

The image encoder gets only valid frames, so a batch norm in it does not use padding for its statistics. Each frame
becomes one token: the mean of its tokens, which describes the content. An optional grid appends the means of its cells,
which describe positions, so that the module over time can detect motion.
"""

import math
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

Temporal = Literal["mean", "gru", "transformer"]
TEMPORAL: tuple[Temporal, ...] = get_args(Temporal)
Layers = list[tuple[nn.Module | nn.Parameter, ...]]


@runtime_checkable
class Layered(Protocol):
    """An image encoder that lists its layers."""

    def layers(self) -> Layers:
        """Return the embeddings or the stem, then one entry per block."""
        ...


class Frames(nn.Module):
    """An image encoder on each frame, a projection, learned positions, then a module over time.

    Args:
        image: maps images (N, 3, H, W) to `Features` of width `image.dim`.
        num_frames: maximum number of frames.
        grid: number of cells per side of a frame whose means are appended to the global mean; 1 for the global mean
            only. Larger values need tokens that form a square map (H', H'), row by row, with H' divisible by `grid`.
        dim: width of the tokens.
        temporal: "mean" gives one token per video, the mean of its frames. "gru" gives one token per frame, after a
            bidirectional GRU. "transformer" gives one token per frame, after blocks and a final norm.
        depth: number of layers or blocks over time; unused by mean.
        num_heads: number of attention heads; must divide `dim`; used only by transformer.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`; used only by transformer.
        dropout: dropout probability on the frame vectors and inside the module over time.

    Raises:
        ValueError: for an unknown `temporal`, a `grid` below 1, or as in `PackedRNN` and `Block`.
    """

    def __init__(
        self,
        *,
        image: nn.Module,
        num_frames: Size,
        grid: Size,
        dim: Size,
        temporal: Temporal,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal = {temporal}; set it to {', '.join(TEMPORAL[:-1])} or {TEMPORAL[-1]}")
        if grid < 1:
            raise ValueError(f"grid = {grid} is below 1; set it to 1 or more")
        self.dim = dim
        self.image = image
        self.pool: nn.Module = MeanPool() if grid == 1 else GridPool(grid)
        num_means = 1 if grid == 1 else 1 + grid * grid
        self.proj = nn.Linear(num_means * cast(int, image.dim), dim)
        self.pos_embed = nn.Parameter(torch.empty(1, num_frames, dim))
        self.drop = nn.Dropout(dropout)
        self.temporal: nn.Module
        if temporal == "mean":
            self.temporal = MeanOverTime()
        elif temporal == "gru":
            self.temporal = PackedRNN(cell="gru", in_dim=dim, dim=dim, depth=depth, bidirectional=True, dropout=dropout)
        else:
            self.temporal = TransformerOverTime(
                dim=dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout
            )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def layers(self) -> Layers:
        """Return the layers of the image encoder (the complete encoder if it does not list them), then those over time.

        The projection and the positions belong to the first layer over time. For "mean", which has no layers, they
        belong to the top.
        """
        inside: Layers = self.image.layers() if isinstance(self.image, Layered) else [(self.image,)]
        over_time: Layers = []
        if isinstance(self.temporal, PackedRNN):
            over_time = [*self.temporal.layers()]
        elif isinstance(self.temporal, TransformerOverTime):
            over_time = [(block,) for block in self.temporal.blocks]
        if not over_time:
            return inside
        first, *others = over_time
        return [*inside, (self.proj, self.pos_embed, *first), *others]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode videos.

        Args:
            values: (B, F, 3, H, W), floating point, normalized; values under a False mask are ignored.
            mask: (B, F), bool, True where a frame is valid; None if all are. At least one in the batch must be.

        Returns:
            tokens (B, 1, dim) and mask (B, 1) for the mean over time, else tokens (B, F, dim) and mask (B, F).

        Raises:
            ValueError: if the batch has more frames than `num_frames`, or if `grid` does not divide the token map.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        length, longest = values.shape[1], self.pos_embed.shape[1]
        if length > longest:
            raise ValueError(
                f"a video has {length} frames, but num_frames = {longest};"
                f" use {longest} of them, or set num_frames to {length}"
            )
        pictures = self.proj(self.pool(self.image(values[mask], None)))  # (number of valid frames, dim)
        tokens = pictures.new_zeros(*mask.shape, self.dim).masked_scatter(mask.unsqueeze(-1), pictures)
        return self.temporal(Features(self.drop(tokens + self.pos_embed[:, :length]), mask))


class GridPool(nn.Module):
    """The global mean, concatenated with the means of the cells of a grid: content and position in one vector.

    With the cells only, content would have to be learned separately for each cell, which needs many more rows.

    Args:
        grid: number of cells per side.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: Features) -> Tensor:
        """Map tokens (N, H * H, D), row by row, all valid, to (N, (1 + grid * grid) * D).

        Raises:
            ValueError: if the tokens are not a square map, or if the grid does not divide its side.
        """
        tokens, grid = features.tokens, self.grid
        num_frames, count, dim = tokens.shape
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(
                f"grid = {grid}, but a frame is {count} tokens, not a square map;"
                " set it to 1, or choose an image encoder without a class token, such as cnn"
            )
        if side % grid:
            raise ValueError(
                f"grid = {grid}, but a frame is {count} tokens, a map of {side} x {side};"
                f" set it to one of {', '.join(str(n) for n in range(1, side + 1) if side % n == 0)}"
            )
        cells = tokens.view(num_frames, grid, side // grid, grid, side // grid, dim).mean(dim=(2, 4))
        return torch.cat([tokens.mean(dim=1), cells.flatten(1)], dim=1)


class MeanOverTime(nn.Module):
    """One token per video: the mean of its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = MeanPool()

    def forward(self, features: Features) -> Features:
        """Map tokens (B, F, D), mask (B, F) to (B, 1, D), (B, 1)."""
        return Features(self.pool(features).unsqueeze(1), features.mask.any(dim=1, keepdim=True))


class TransformerOverTime(nn.Module):
    """Pre-norm blocks and a final norm."""

    def __init__(self, *, dim: int, depth: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, features: Features) -> Features:
        """Map tokens (B, F, D), mask (B, F) to the same shapes."""
        x, mask = features
        for block in self.blocks:
            x = block(x, mask)
        return Features(self.norm(x), mask)
