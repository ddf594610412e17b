"""A GRU for features over time that another program computed."""

from torch import Tensor, nn

from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.types import Features


class SequenceGRU(nn.Module):
    """A packed GRU, from both ends if asked: one token a frame.

    Args:
        in_dim: features of a frame; the data knows them.
        dim: width of the tokens.
        depth: layers.
        bidirectional: whether half of the width reads from the end.
        dropout: between the layers and of what comes out.

    Raises:
        ValueError: for what `PackedRNN` refuses.
    """

    def __init__(self, *, in_dim: int, dim: int, depth: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.gru = PackedRNN(
            cell="gru", in_dim=in_dim, dim=dim, depth=depth, bidirectional=bidirectional, dropout=dropout
        )
        self.drop = nn.Dropout(dropout)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Nothing for embeddings, which features do not need, then the parameters of each layer."""
        return [(), *self.gru.layers()]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode sequences.

        Args:
            values: (B, T, in_dim), floating point; what stands under a False mask is ignored.
            mask: (B, T), bool, True where a frame is valid; None when all are.

        Returns:
            tokens (B, T, dim), zeros under a False mask; mask (B, T).
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        tokens, mask = self.gru(Features(values, mask))
        return Features(self.drop(tokens), mask)
