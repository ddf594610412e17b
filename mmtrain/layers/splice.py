"""Dialogues with media tokens inserted: from ids and media tokens to embeddings and their positions in lines.

All work is done on one flat list of the valid tokens, row by row. Only the last step, the layout in lines, depends on
packing: one row per line, or several rows per line, each with positions from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmtrain.layers.gated_read import MediaContext


class Media(NamedTuple):
    """The media items of one modality.

    Attributes:
        tokens: (B, N, K, D), N media items per row.
        mask: (B, N, K), bool, True where a token is valid; all False for a missing item.
    """

    tokens: Tensor
    mask: Tensor


class Spliced(NamedTuple):
    """The S tokens of all rows, in order.

    Attributes:
        embeds: (S, D).
        ids: (S,), int64; for a media token, the id of its placeholder.
        flags: (S,), int64; see `DialogueTarget`.
        row: (S,), int64, row of each token.
        position: (S,), int64, position in the row, from 0.
        lengths: (B,), int64, number of tokens per row.
    """

    embeds: Tensor
    ids: Tensor
    flags: Tensor
    row: Tensor
    position: Tensor
    lengths: Tensor


class Lines(NamedTuple):
    """Layout of the tokens in lines.

    Attributes:
        slot: (S,), int64, line * width + column.
        number: number of lines.
        width: length of the longest line.
        line: (B,), int64, line of each row.
        rank: (B,), int64, index of each row within its line; None if every line has one row.
    """

    slot: Tensor
    number: int
    width: int
    line: Tensor
    rank: Tensor | None

    def put(self, flat: Tensor, fill: float) -> Tensor:
        """Arrange (S, ...) as (number, width, ...)."""
        full = flat.new_full((self.number * self.width, *flat.shape[1:]), fill)
        return full.index_copy(0, self.slot, flat).unflatten(0, (self.number, self.width))


def splice(
    values: Tensor, keep: Tensor, embed: Callable[[Tensor], Tensor], media: Mapping[int, Media], *, inserted: bool
) -> Spliced:
    """Insert media tokens at their placeholders.

    Args:
        values: (B, L, 2), int64, ids and flags.
        keep: (B, L), bool, True where a token is valid.
        embed: maps ids (S,) to (S, D).
        media: by placeholder id; the n-th placeholder of a row belongs to its n-th media item.
        inserted: True replaces a placeholder by the media tokens; False keeps the placeholder's own embedding. The
            placeholder of a missing item is removed in both cases.
    """
    ids, flags = values.unbind(dim=2)
    repeats = keep.long()
    requested = {}
    for place, (_, mask) in media.items():
        here = keep & (ids == place)
        number = here.cumsum(dim=1) - 1
        last = mask.shape[1] - 1
        count = mask.sum(dim=2).gather(1, number.clamp(0, last)).masked_fill(number > last, 0)
        repeats = torch.where(here, count if inserted else count.clamp(max=1), repeats)
        requested[place] = torch.arange(last + 1, device=ids.device) < here.sum(dim=1, keepdim=True)
    lengths = repeats.sum(dim=1)
    source = torch.arange(repeats.numel(), device=ids.device).repeat_interleave(repeats.flatten())
    flat_ids = ids.flatten()[source]
    embeds = embed(flat_ids)
    for place, (tokens, mask) in media.items() if inserted else ():
        # the tokens of a row that are used come in the order of their placeholders
        positions = (flat_ids == place).nonzero().squeeze(1)
        embeds = embeds.index_copy(0, positions, tokens[mask & requested[place].unsqueeze(2)].to(embeds.dtype))
    row = source // ids.shape[1]
    position = torch.arange(len(row), device=ids.device) - (lengths.cumsum(0) - lengths)[row]
    return Spliced(embeds, flat_ids, flags.flatten()[source], row, position, lengths)


def lay_out(spliced: Spliced, *, room: int | None) -> Lines:
    """Arrange the rows in lines.

    Args:
        spliced: the tokens.
        room: maximum tokens per line when rows share lines, packed first-fit by decreasing length. A longer row gets
            its own line. None puts one row on each line.
    """
    if room is None:
        rows = torch.arange(len(spliced.lengths), device=spliced.row.device)
        width = max(1, int(spliced.lengths.max()))
        return Lines(spliced.row * width + spliced.position, len(rows), width, rows, None)
    lengths = spliced.lengths.tolist()
    places = _packed(lengths, room)
    line, offset, rank = torch.tensor(places, device=spliced.row.device).unbind(dim=1)
    width = max(1, int((offset + spliced.lengths).max()))
    slot = (line * width + offset)[spliced.row] + spliced.position
    return Lines(slot, int(line.max()) + 1, width, line, rank)


def align_right(spliced: Spliced) -> Lines:
    """Arrange one row per line, aligned at the right end, as generation requires."""
    lines = lay_out(spliced, room=None)
    return lines._replace(slot=lines.slot + lines.width - spliced.lengths[spliced.row])


def _packed(lengths: Sequence[int], room: int) -> list[tuple[int, int, int]]:
    """Return per row its line, its offset and its rank in the line, by first-fit with decreasing length."""
    filled: list[int] = []
    counts: list[int] = []
    places = [(0, 0, 0)] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        at = next((n for n, used in enumerate(filled) if used + lengths[row] <= room), len(filled))
        if at == len(filled):
            filled.append(0)
            counts.append(0)
        places[row] = (at, filled[at], counts[at])
        filled[at] += lengths[row]
        counts[at] += 1
    return places


def within_rows(row: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a causal mask within rows that share lines, added to scores: (P, 1, T, T), 0 or the minimum of `dtype`.

    Args:
        row: (P, T), int64, row of each token; -1 for padding, which attends to itself.
        dtype: dtype of the scores.
    """
    same = (row.unsqueeze(2) == row.unsqueeze(1)) & (row >= 0).unsqueeze(1)
    sees = (same | torch.eye(row.shape[1], dtype=torch.bool, device=row.device)).tril()
    return torch.zeros(sees.shape, dtype=dtype, device=row.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


def media_context(spliced: Spliced, lines: Lines, media: Mapping[int, Media]) -> MediaContext:
    """Build the cross-attention context: each token attends to the latest media item before it, per placeholder.

    Args:
        spliced: with one token per placeholder of each present item.
        lines: layout of the tokens; rows that share a line do not attend to each other's media.
        media: by placeholder id.
    """
    tokens = torch.cat([m.tokens.flatten(1, 2) for m in media.values()], dim=1)  # (B, C, D)
    start = spliced.lengths.cumsum(0) - spliced.lengths
    masks = []
    for place, m in media.items():
        spoken = (spliced.ids == place).long().cumsum(0)
        before = torch.cat([spoken.new_zeros(1), spoken])[start]
        last = spoken - before[spliced.row] - 1  # -1: no item yet
        chosen = torch.arange(m.mask.shape[1], device=last.device) == last.unsqueeze(1)
        masks.append((chosen.unsqueeze(2) & m.mask[spliced.row]).flatten(1))
    mask = torch.cat(masks, dim=1)  # (S, C)
    if lines.rank is None:
        return MediaContext(tokens, lines.put(mask, False))
    most = int(lines.rank.max()) + 1
    gathered = tokens.new_zeros(lines.number * most, *tokens.shape[1:])
    gathered = (
        gathered.index_copy(0, lines.line * most + lines.rank, tokens).unflatten(0, (lines.number, most)).flatten(1, 2)
    )
    own = torch.arange(most, device=mask.device) == lines.rank[spliced.row].unsqueeze(1)
    return MediaContext(gathered, lines.put((own.unsqueeze(2) & mask.unsqueeze(1)).flatten(1), False))
