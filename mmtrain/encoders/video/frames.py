"""Films frame by frame: any image encoder on each frame, then nothing, a GRU or a Transformer over time.

The image encoder sees only frames that are there, so that a batch norm in it takes no statistics of padding. Each frame
becomes one token: the mean of its tokens, which says what is there. A grid, where one is asked for, puts the means of
its cells beside it, which say where: what looks at time then sees things move.
"""

import math
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.layers.block import Block
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

TEMPORAL = ("mean", "gru", "transformer")
Layers = list[tuple[nn.Module | nn.Parameter, ...]]


@runtime_checkable
class Layered(Protocol):
    """An image encoder that tells its layers."""

    def layers(self) -> Layers:
        """The embeddings or the stem first, then one entry a block."""
        ...


class Frames(nn.Module):
    """An image encoder on each frame, a projection, learned positions, then something over time.

    Args:
        image: maps pictures (N, 3, H, W) to `Features`, and says its width in `dim`.
        num_frames: the most frames of a film.
        grid: cells of a frame along each side whose means stand beside that of the whole; 1: none do. More want an
            image encoder whose tokens are a square map (H', H'), row by row, H' being a multiple.
        dim: width of the tokens.
        temporal: mean: one token a film, the mean of its frames; gru: one a frame, after a GRU from both ends;
            transformer: one a frame, after blocks and a last norm.
        depth: layers or blocks over time; of no use to mean.
        num_heads: attention heads, divides `dim`; of use to transformer only.
        mlp_ratio: hidden width of a block's MLP over `dim`; of use to transformer only.
        dropout: of the frames before time is looked at, and inside what looks at it.

    Raises:
        ValueError: for an unknown `temporal`, a grid without a cell, and for what the GRU or the blocks refuse.
    """

    def __init__(
        self,
        *,
        image: nn.Module,
        num_frames: int,
        grid: int,
        dim: int,
        temporal: str,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal = {temporal}; set it to {', '.join(TEMPORAL[:-1])} or {TEMPORAL[-1]}")
        if grid < 1:
            raise ValueError(f"grid = {grid} keeps nothing of a frame; set it to 1 or more")
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
        """Those of the image encoder (the whole of it, if it tells none), then those over time.

        The projection and the positions go with the first over time; of mean over time, which has none, they are the
        top.
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
        """Encode films.

        Args:
            values: (B, F, 3, H, W), floating point, normalised; what stands under a False mask is ignored.
            mask: (B, F), bool, True where a frame is valid; None when all are. At least one of the batch is.

        Returns:
            tokens (B, 1, dim) and mask (B, 1) for the mean over time, else tokens (B, F, dim) and mask (B, F).

        Raises:
            ValueError: for a batch with more than `num_frames`, and for tokens that the grid does not divide.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        length, longest = values.shape[1], self.pos_embed.shape[1]
        if length > longest:
            raise ValueError(
                f"a film of {length} frames, but num_frames = {longest};"
                f" take {longest} of them, or set num_frames to {length}"
            )
        pictures = self.proj(self.pool(self.image(values[mask], None)))  # (frames that are there, dim)
        tokens = pictures.new_zeros(*mask.shape, self.dim).masked_scatter(mask.unsqueeze(-1), pictures)
        return self.temporal(Features(self.drop(tokens + self.pos_embed[:, :length]), mask))


class GridPool(nn.Module):
    """The mean of all, and the means of the cells of a grid, side by side: a vector that knows what is there and where.

    From the cells alone things are learned once for each cell, which takes many more rows.

    Args:
        grid: cells along each side.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: Features) -> Tensor:
        """Map tokens (N, H * H, D), row by row, all of them valid, to (N, (1 + grid * grid) * D).

        Raises:
            ValueError: when the tokens are no square map, or the grid does not divide its side.
        """
        tokens, grid = features.tokens, self.grid
        num_frames, count, dim = tokens.shape
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(
                f"grid = {grid}, but a frame is {count} tokens, no square map;"
                " set it to 1, or take an image encoder without a class token, such as cnn"
            )
        if side % grid:
            raise ValueError(
                f"grid = {grid}, but a frame is {count} tokens, a map of {side} x {side};"
                f" set it to one of {', '.join(str(n) for n in range(1, side + 1) if side % n == 0)}"
            )
        cells = tokens.view(num_frames, grid, side // grid, grid, side // grid, dim).mean(dim=(2, 4))
        return torch.cat([tokens.mean(dim=1), cells.flatten(1)], dim=1)


class MeanOverTime(nn.Module):
    """One token a film: the mean of its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = MeanPool()

    def forward(self, features: Features) -> Features:
        """Map tokens (B, F, D), mask (B, F) to (B, 1, D), (B, 1)."""
        return Features(self.pool(features).unsqueeze(1), features.mask.any(dim=1, keepdim=True))


class TransformerOverTime(nn.Module):
    """Pre-norm blocks and a last norm."""

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
