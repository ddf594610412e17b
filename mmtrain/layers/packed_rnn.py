"""A GRU or LSTM over masked tokens: packed, so padding is not computed; optionally bidirectional."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmtrain.types import Features

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class PackedRNN(nn.Module):
    """PyTorch's GRU (1406.1078) or LSTM (without peepholes) over the valid tokens of each row, at any positions.

    Args:
        cell: gru or lstm.
        in_dim: width of the input tokens.
        dim: width of the output tokens, both directions together.
        depth: number of layers.
        bidirectional: whether half of the output width comes from a backward direction.
        dropout: dropout probability between layers.

    Raises:
        ValueError: for an unknown cell, an odd width with two directions, or a `depth` below 1.
    """

    def __init__(self, *, cell: str, in_dim: int, dim: int, depth: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.share_without_content = 1.0  # assumed fraction of valid tokens for meta tensors, in mode=plan
        if cell not in CELLS:
            raise ValueError(f"cell = {cell}; set it to {' or '.join(CELLS)}")
        if bidirectional and dim % 2:
            raise ValueError(
                f"dim = {dim} cannot be halved over two directions; set dim to {dim + 1}, or bidirectional to false"
            )
        if depth < 1:
            raise ValueError(f"depth = {depth} is below 1; set it to at least 1")
        self.rnn = CELLS[cell](
            in_dim,
            dim // 2 if bidirectional else dim,
            num_layers=depth,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if depth > 1 else 0.0,  # torch warns about dropout with a single layer
        )

    def layers(self) -> list[tuple[nn.Parameter, ...]]:
        """Return the parameters of each layer, both directions together."""
        named = list(self.rnn.named_parameters())
        return [
            tuple(p for name, p in named if name.removesuffix("_reverse").endswith(f"_l{layer}"))
            for layer in range(self.rnn.num_layers)
        ]

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to tokens (B, T, dim), zeros under a False mask, and the mask.

        The lengths are copied to the CPU, as packing requires.
        """
        tokens, mask = features.cleared()
        if tokens.is_meta:  # meta tensors have no lengths
            length = max(1, round(tokens.shape[1] * self.share_without_content))
            out = F.pad(self.rnn(tokens[:, :length])[0], (0, 0, 0, tokens.shape[1] - length))
            return Features(out, mask).cleared()
        order = mask.int().argsort(dim=1, descending=True, stable=True)  # valid tokens first
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # packing rejects length 0; outputs of empty rows are zeroed
        packed = pack_padded_sequence(_at(tokens, order), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return Features(_at(out, order.argsort(dim=1)), mask).cleared()


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    """Reorder (B, T, D): output token t of a row is its input token places[row, t]."""
    return torch.gather(tokens, 1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
