"""A Transformer encoder for features over time that another program computed."""

import torch
from torch import Tensor, nn

from mmtrain.layers.block import Block
from mmtrain.types import Features


class SequenceTransformer(nn.Module):
    """A projection, learned positions, pre-norm blocks, a last norm: one token a frame.

    Args:
        in_dim: features of a frame; the data knows them.
        max_length: the longest sequence in frames.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of a block's MLP over `dim`.
        dropout: of the projected frames and of what attention and MLP add.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        max_length: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
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
        """The projection of frames and positions, then the blocks."""
        return [(self.proj, self.pos_embed), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode sequences.

        Args:
            values: (B, T, in_dim), floating point; what stands under a False mask is ignored.
            mask: (B, T), bool, True where a frame is valid; None when all are.

        Returns:
            tokens (B, T, dim), mask (B, T).

        Raises:
            ValueError: for a batch that is longer than `max_length`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        length, longest = values.shape[1], self.pos_embed.shape[1]
        if length > longest:
            raise ValueError(
                f"a sequence of {length} frames, but max_length = {longest};"
                f" cut it to {longest}, or set max_length to {length}"
            )
        x = self.proj(Features(values, mask).cleared().tokens)
        x = self.drop(x + self.pos_embed[:, :length])
        for block in self.blocks:
            x = block(x, mask)
        return Features(self.norm(x), mask)
