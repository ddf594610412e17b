"""A GRU for precomputed features over time."""

from torch import Tensor, nn

from mmtrain.annotations import Fraction, PositiveDepth, Size
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.types import Features


class SequenceGRU(nn.Module):
    """A packed GRU, optionally bidirectional: one token per frame.

    Args:
        in_dim: number of features per frame, taken from the data.
        dim: width of the tokens.
        depth: number of layers.
        bidirectional: whether half of the output width comes from a backward direction.
        dropout: dropout probability between layers and on the output.

    Raises:
        ValueError: as in `PackedRNN`.
    """

    def __init__(self, *, in_dim: int, dim: Size, depth: PositiveDepth, bidirectional: bool, dropout: Fraction) -> None:
        super().__init__()
        self.dim = dim
        self.gru = PackedRNN(
            cell="gru", in_dim=in_dim, dim=dim, depth=depth, bidirectional=bidirectional, dropout=dropout
        )
        self.drop = nn.Dropout(dropout)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return an empty stem, then the parameters of each layer."""
        return [(), *self.gru.layers()]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode sequences.

        Args:
            values: (B, T, in_dim), floating point; values under a False mask are ignored.
            mask: (B, T), bool, True where a frame is valid; None if all are.

        Returns:
            tokens (B, T, dim), zeros under a False mask; mask (B, T).
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        tokens, mask = self.gru(Features(values, mask))
        return Features(self.drop(tokens), mask)
