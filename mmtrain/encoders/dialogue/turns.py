"""Dialogues turn by turn: any text encoder on each turn, then a GRU or a Transformer over the turns.

Hierarchical, as 1507.02221. Unusual here: places of turns count from the last one, which is asked about, and what is
read are the turns and behind them the tokens of the last one, so that a decoder can take words from it.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmtrain.layers.block import Block
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

CONTEXTS = ("none", "gru", "transformer")


class Turns(nn.Module):
    """A text encoder on each turn, who speaks and how long ago, then the context.

    Args:
        text: maps ids (N, L), mask (N, L) to `Features`, and says its width in `dim`.
        max_turns: the most turns.
        max_speakers: how many are told apart.
        dim: width of the tokens.
        context: over turns: none, gru (from the first to the last) or transformer.
        depth: layers or blocks over turns.
        num_heads: of the transformer.
        mlp_ratio: of the transformer.
        dropout: of the turns before, and inside what looks at them.

    Raises:
        ValueError: for an unknown `context`, and for what the GRU or the blocks refuse.
    """

    def __init__(
        self,
        *,
        text: nn.Module,
        max_turns: int,
        max_speakers: int,
        dim: int,
        context: str,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if context not in CONTEXTS:
            raise ValueError(f"context = {context}; set it to {', '.join(CONTEXTS[:-1])} or {CONTEXTS[-1]}")
        self.dim = dim
        self.text = text
        self.pool = MeanPool()
        self.proj = nn.Linear(cast(int, text.dim), dim)
        self.places = nn.Parameter(torch.empty(max_turns, dim))
        self.speakers = nn.Parameter(torch.empty(max_speakers, dim))
        self.kinds = nn.Parameter(torch.empty(2, dim))  # of a turn, and of a token of the last one
        self.drop = nn.Dropout(dropout)
        self.rnn = None
        self.blocks = nn.ModuleList()
        if context == "gru":
            self.rnn = PackedRNN(cell="gru", in_dim=dim, dim=dim, depth=depth, bidirectional=False, dropout=dropout)
        elif context == "transformer":
            blocks = (Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth))
            self.blocks.extend(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for parameter in (self.places, self.speakers, self.kinds):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode dialogues.

        Args:
            values: (B, N, 1 + L), int64: the number of the speaker, then token ids, -1 where there is none.
            mask: (B, N), bool, True where a turn is there; turns stand at the beginning.

        Returns:
            tokens (B, N + L, dim) and mask (B, N + L): the turns, and the tokens of the last one.

        Raises:
            ValueError: for a batch with more turns than `max_turns`.
        """
        assert mask is not None, "dialogues are of different lengths"
        if mask.shape[1] > len(self.places):
            raise ValueError(f"a dialogue of {mask.shape[1]} turns, but max_turns = {len(self.places)}")
        said = self._said(values[mask][:, 1:])
        turns = self.proj(self.pool(said)) + self.speakers[values[mask][:, 0]]
        turns = turns.new_zeros(*mask.shape, self.dim).masked_scatter(mask.unsqueeze(-1), turns)
        ago = (mask.flip(1).cumsum(1).flip(1) - 1).clamp(min=0)  # 0 for the last turn
        x = self.norm(self._in_context(self.drop(turns + self.places[ago]), mask))
        words = self._last(said, mask)
        tokens = torch.cat([x + self.kinds[0], self.proj(words.tokens) + self.kinds[1]], dim=1)
        return Features(tokens, torch.cat([mask, words.mask], dim=1))

    def _said(self, ids: Tensor) -> Features:
        """Features of M turns; a turn without words has none."""
        there = ids >= 0
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        some = there | (first & ~there.any(dim=1, keepdim=True))  # a text encoder wants a token
        tokens, mask = self.text(ids.clamp(min=0), some)
        return Features(tokens, mask & there.any(dim=1, keepdim=True)).cleared()

    def _in_context(self, turns: Tensor, mask: Tensor) -> Tensor:
        if self.rnn is not None:
            return turns + self.rnn(Features(turns, mask)).tokens
        for block in self.blocks:
            turns = block(turns, mask)
        return turns

    def _last(self, said: Features, mask: Tensor) -> Features:
        """Those of the last turn of each row, (B, L, D) and (B, L); of the first turns a row has one at least."""
        place = (mask.flatten().cumsum(0) - 1).view_as(mask)  # of each turn among all that are there
        last = place.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1).clamp(min=0)
        taken = said.take(last)
        return Features(taken.tokens, taken.mask & mask.any(dim=1, keepdim=True))
