"""Dialogues turn by turn: a text encoder on each turn, then a GRU or a Transformer over the turns.

The structure is hierarchical, as in 1507.02221. Positions of turns count backwards from the last turn, whose label is
predicted. The output is the turns, followed by the tokens of the last turn, so that a decoder can copy words from it.
"""

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

Context = Literal["none", "gru", "transformer"]
CONTEXTS: tuple[Context, ...] = get_args(Context)


class Turns(nn.Module):
    """A text encoder per turn, embeddings of speaker and turn distance, then the context over turns.

    Args:
        text: maps ids (N, L), mask (N, L) to `Features` of width `text.dim`.
        max_turns: maximum number of turns.
        max_speakers: number of distinct speakers.
        dim: width of the tokens.
        context: model over turns: none, gru (from first to last) or transformer.
        depth: number of layers or blocks over turns.
        num_heads: number of attention heads of the transformer.
        mlp_ratio: hidden width of the transformer's MLP as a multiple of `dim`.
        dropout: dropout probability on the turn vectors and inside the context model.

    Raises:
        ValueError: for an unknown `context`, or as in `PackedRNN` and `Block`.
    """

    def __init__(
        self,
        *,
        text: nn.Module,
        max_turns: Size,
        max_speakers: Size,
        dim: Size,
        context: Context,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
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
        self.kinds = nn.Parameter(torch.empty(2, dim))  # type embeddings: a turn, and a token of the last turn
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
            values: (B, N, 1 + L), int64: speaker index, then token ids, -1 for padding.
            mask: (B, N), bool, True where a turn is valid; valid turns come first.

        Returns:
            tokens (B, N + L, dim) and mask (B, N + L): the turns, then the tokens of the last turn.

        Raises:
            ValueError: if the batch has more turns than `max_turns`.
        """
        assert mask is not None, "dialogues are of different lengths"
        if mask.shape[1] > len(self.places):
            raise ValueError(f"a dialogue of {mask.shape[1]} turns, but max_turns = {len(self.places)}")
        encoded = self._encode_turns(values[mask][:, 1:])
        turns = self.proj(self.pool(encoded)) + self.speakers[values[mask][:, 0]]
        turns = turns.new_zeros(*mask.shape, self.dim).masked_scatter(mask.unsqueeze(-1), turns)
        ago = (mask.flip(1).cumsum(1).flip(1) - 1).clamp(min=0)  # 0 for the last turn
        x = self.norm(self._in_context(self.drop(turns + self.places[ago]), mask))
        words = self._last(encoded, mask)
        tokens = torch.cat([x + self.kinds[0], self.proj(words.tokens) + self.kinds[1]], dim=1)
        return Features(tokens, torch.cat([mask, words.mask], dim=1))

    def _encode_turns(self, ids: Tensor) -> Features:
        """Encode M turns. A turn without words has no valid token."""
        present = ids >= 0
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        some = present | (first & ~present.any(dim=1, keepdim=True))  # a text encoder needs at least one valid token
        tokens, mask = self.text(ids.clamp(min=0), some)
        return Features(tokens, mask & present.any(dim=1, keepdim=True)).cleared()

    def _in_context(self, turns: Tensor, mask: Tensor) -> Tensor:
        if self.rnn is not None:
            return turns + self.rnn(Features(turns, mask)).tokens
        for block in self.blocks:
            turns = block(turns, mask)
        return turns

    def _last(self, encoded: Features, mask: Tensor) -> Features:
        """Select the features of each row's last turn, (B, L, D) and (B, L)."""
        place = (mask.flatten().cumsum(0) - 1).view_as(mask)  # index of each turn among all valid turns
        last = place.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1).clamp(min=0)
        taken = encoded.take(last)
        return Features(taken.tokens, taken.mask & mask.any(dim=1, keepdim=True))
