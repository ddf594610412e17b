"""A Transformer encoder for token ids, from scratch: learned positions, pre-norm blocks, final norm."""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, PositiveFloat, Size, TextLength, VocabSize, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.types import Features


class TextTransformer(nn.Module):
    """A bidirectional text encoder.

    Args:
        vocab_size: number of token ids.
        max_length: maximum length in tokens.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the embeddings and on the outputs of attention and MLP.
        layer_scale: initial value of the factor on the outputs of attention and MLP; None for no factor. With a small
            value the encoder starts as a bag of words, which works best for unseen names made of known words.
    """

    def __init__(
        self,
        *,
        vocab_size: VocabSize,
        max_length: TextLength,
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
        layer_scale: PositiveFloat | None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Embedding(vocab_size, dim)
        self.pos_embed = nn.Parameter(torch.empty(1, max_length, dim))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout, layer_scale=layer_scale)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.normal_(self.embed.weight, std=dim**-0.5)
        nn.init.normal_(self.pos_embed, std=0.01)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings and positions, then the blocks."""
        return [(self.embed, self.pos_embed), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode token ids.

        Args:
            values: (B, L), int64, L at most max_length; values under a False mask are ignored.
            mask: (B, L), bool, True where a token is valid; None if all are.

        Returns:
            tokens (B, L, dim), mask (B, L).
        """
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        x = self.embed(values.masked_fill(~mask, 0))
        x = self.drop(x + self.pos_embed[:, : values.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        return Features(self.norm(x), mask)
