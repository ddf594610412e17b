"""The base of the recurrent encoders for token ids, `TextGRU` and `TextLSTM`."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, PositiveDepth, Size, VocabSize
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.types import Features


class TextRNN(nn.Module):
    """Embeddings and a packed RNN, optionally bidirectional. Texts may have any length.

    Args:
        vocab_size: number of token ids.
        dim: width of the embeddings and of the tokens.
        depth: number of layers.
        bidirectional: whether half of the output width comes from a backward direction.
        dropout: dropout probability on the embeddings, between layers and on the output.

    Attributes:
        cell: the kind of RNN, and the name of its module in checkpoints.

    Raises:
        ValueError: as in `PackedRNN`.
    """

    cell: ClassVar[Literal["gru", "lstm"]]

    def __init__(
        self,
        *,
        vocab_size: VocabSize,
        dim: Size,
        depth: PositiveDepth,
        bidirectional: bool,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Embedding(vocab_size, dim)
        rnn = PackedRNN(cell=self.cell, in_dim=dim, dim=dim, depth=depth, bidirectional=bidirectional, dropout=dropout)
        self.add_module(self.cell, rnn)
        self.drop = nn.Dropout(dropout)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings, then the parameters of each layer."""
        return [(self.embed,), *self.rnn.layers()]

    @property
    def rnn(self) -> PackedRNN:
        """The RNN."""
        rnn = self.get_submodule(self.cell)
        assert isinstance(rnn, PackedRNN)
        return rnn

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode token ids.

        Args:
            values: (B, L), int64; values under a False mask are ignored.
            mask: (B, L), bool, True where a token is valid; None if all are.

        Returns:
            tokens (B, L, dim), zeros under a False mask; mask (B, L).
        """
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        x = self.drop(self.embed(values.masked_fill(~mask, 0)))
        tokens, mask = self.rnn(Features(x, mask))
        return Features(self.drop(tokens), mask)
