"""A GRU or LSTM over masked tokens: packed, so that padding is not even computed, from both ends if asked."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmtrain.types import Features

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class PackedRNN(nn.Module):
    """torch's GRU (1406.1078) or LSTM (without peepholes) over the valid tokens of each row, wherever they stand.

    Args:
        cell: gru or lstm.
        in_dim: width of the tokens that come in.
        dim: width of those that go out; both directions together.
        depth: layers.
        bidirectional: whether half of the width reads from the end.
        dropout: between the layers.

    Raises:
        ValueError: for an unknown cell, two directions and an odd width, and for no layer at all.
    """

    def __init__(self, *, cell: str, in_dim: int, dim: int, depth: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.share_without_content = 1.0  # of the tokens that are valid, where they have no content: in a plan
        if cell not in CELLS:
            raise ValueError(f"cell = {cell}; set it to {' or '.join(CELLS)}")
        if bidirectional and dim % 2:
            raise ValueError(
                f"dim = {dim} cannot be halved over two directions; set dim to {dim + 1}, or bidirectional to false"
            )
        if depth < 1:
            raise ValueError(f"depth = {depth} is no layer; set it to at least 1")
        self.rnn = CELLS[cell](
            in_dim,
            dim // 2 if bidirectional else dim,
            num_layers=depth,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if depth > 1 else 0.0,  # torch warns of one between the layers of one
        )

    def layers(self) -> list[tuple[nn.Parameter, ...]]:
        """The parameters of each layer, both directions together."""
        named = list(self.rnn.named_parameters())
        return [
            tuple(p for name, p in named if name.removesuffix("_reverse").endswith(f"_l{layer}"))
            for layer in range(self.rnn.num_layers)
        ]

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to tokens (B, T, dim), zeros under a False mask, and the mask.

        The lengths are brought to the CPU, which packing asks for.
        """
        tokens, mask = features.cleared()
        if tokens.is_meta:  # nobody knows the lengths
            length = max(1, round(tokens.shape[1] * self.share_without_content))
            out = F.pad(self.rnn(tokens[:, :length])[0], (0, 0, 0, tokens.shape[1] - length))
            return Features(out, mask).cleared()
        order = mask.int().argsort(dim=1, descending=True, stable=True)  # the valid ones come first
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # packing refuses a row of nothing; what it gives is cleared
        packed = pack_padded_sequence(_at(tokens, order), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return Features(_at(out, order.argsort(dim=1)), mask).cleared()


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, T, D), token t of a row being the one that stood at places[row, t]."""
    return torch.gather(tokens, 1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
