"""A Transformer encoder for precomputed features over time."""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.types import Features


class SequenceTransformer(nn.Module):
    """A projection, learned positions, pre-norm blocks, final norm: one token per frame.

    Args:
        in_dim: number of features per frame, taken from the data.
        max_length: maximum length in frames.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the projected frames and on the outputs of attention and MLP.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        max_length: Size,
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.proj = nn.Linear(in_dim, dim)
        self.pos_embed = nn.Parameter(torch.empty(1, max_length, dim))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the input projection and positions, then the blocks."""
        return [(self.proj, self.pos_embed), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode sequences.

        Args:
            values: (B, T, in_dim), floating point; values under a False mask are ignored.
            mask: (B, T), bool, True where a frame is valid; None if all are.

        Returns:
            tokens (B, T, dim), mask (B, T).

        Raises:
            ValueError: if the batch is longer than `max_length`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        length, longest = values.shape[1], self.pos_embed.shape[1]
        if length > longest:
            raise ValueError(
                f"a sequence has {length} frames, but max_length = {longest};"
                f" crop it to {longest}, or set max_length to {length}"
            )
        x = self.proj(Features(values, mask).cleared().tokens)
        x = self.drop(x + self.pos_embed[:, :length])
        for block in self.blocks:
            x = block(x, mask)
        return Features(self.norm(x), mask)
