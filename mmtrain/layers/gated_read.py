"""Gated cross-attention whose gates start closed (Flamingo, 2204.14198, fig. 4), also in front of foreign blocks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmtrain.layers.streams import FeedForward, Read


class GatedRead(nn.Module):
    """y + tanh(a) read(y, context), then y + tanh(b) feed_forward(y)."""

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.read = Read(dim=dim, num_heads=num_heads, dropout=dropout)
        self.feed = FeedForward(dim=dim, mlp_ratio=mlp_ratio, dropout=dropout)
        self.read_gate = nn.Parameter(torch.zeros(1))
        self.feed_gate = nn.Parameter(torch.zeros(1))

    def forward(self, y: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, dim) to its shape, attending to `context` (B, K, dim) where `mask` (B, K) or (B, T, K) is True."""
        y = y + self.read_gate.tanh() * self.read(y, context, mask)
        return y + self.feed_gate.tanh() * self.feed(y)


class MediaContext(NamedTuple):
    """Context tokens that lines of text attend to by cross-attention.

    Attributes:
        tokens: (P, C, D).
        mask: (P, T, C), bool, True where a text token attends to a context token.
    """

    tokens: Tensor
    mask: Tensor


@contextmanager
def reading(blocks: Sequence[nn.Module], readers: nn.ModuleDict, context: MediaContext) -> Iterator[None]:
    """Within the context, insert gated cross-attention in front of foreign blocks, such as those of a language model.

    Args:
        blocks: each takes tokens (P, T, D) as its first argument. In generation, T can be 1, the last token of a longer
            line, and P can be a multiple, for several beams per line.
        readers: `GatedRead` modules, keyed by the index of the block that follows.
        context: the context tokens.
    """

    def read(number: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
        y, (tokens, mask) = given[0], context
        beams = len(y) // len(tokens)
        mask = mask if y.shape[1] == mask.shape[1] else mask[:, -y.shape[1] :]
        if beams > 1:
            tokens, mask = tokens.repeat_interleave(beams, dim=0), mask.repeat_interleave(beams, dim=0)
        return (readers[number](y, tokens, mask), *given[1:])

    handles = [
        blocks[int(number)].register_forward_pre_hook(lambda module, given, number=number: read(number, given))
        for number in readers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
