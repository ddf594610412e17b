"""Dialogues with their media put in: ids and tokens of media -> embeddings, and where they stand in lines.

Everything is done on one flat list of the tokens that there are, row by row. Only its last step, the places in lines,
differs with packing: a row a line, or several rows in one, each with positions from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmtrain.layers.gated_read import Beside


class Media(NamedTuple):
    """The media of one modality.

    Attributes:
        tokens: (B, N, K, D), N media a row.
        mask: (B, N, K), bool, True where a token is valid; a medium that a row lacks has none.
    """

    tokens: Tensor
    mask: Tensor


class Spliced(NamedTuple):
    """S tokens of all rows, in order.

    Attributes:
        embeds: (S, D).
        ids: (S,), int64; that of its place for a token of a medium.
        flags: (S,), int64; see `DialogueTarget`.
        row: (S,), int64.
        position: (S,), int64, in its row from 0.
        lengths: (B,), int64, tokens of each row.
    """

    embeds: Tensor
    ids: Tensor
    flags: Tensor
    row: Tensor
    position: Tensor
    lengths: Tensor


class Lines(NamedTuple):
    """Where the tokens stand.

    Attributes:
        slot: (S,), int64, line * width + column.
        number: of lines.
        width: of the longest.
        line: (B,), int64, of each row.
        rank: (B,), int64, how many rows stand before it on its line; None: no line has several.
    """

    slot: Tensor
    number: int
    width: int
    line: Tensor
    rank: Tensor | None

    def put(self, flat: Tensor, fill: float) -> Tensor:
        """(S, ...) as (number, width, ...)."""
        whole = flat.new_full((self.number * self.width, *flat.shape[1:]), fill)
        return whole.index_copy(0, self.slot, flat).unflatten(0, (self.number, self.width))


def splice(
    values: Tensor, keep: Tensor, embed: Callable[[Tensor], Tensor], media: Mapping[int, Media], *, inserted: bool
) -> Spliced:
    """Put media in their places.

    Args:
        values: (B, L, 2), int64, ids and flags.
        keep: (B, L), bool, which of them there are.
        embed: maps ids (S,) to (S, D).
        media: by the id of their place; the n-th place of a row is that of its n-th medium.
        inserted: whether a medium's tokens stand in its place; else the place's own embedding does. A medium that a row
            lacks leaves nothing of its place, either way.
    """
    ids, flags = values.unbind(dim=2)
    repeats = keep.long()
    asked = {}
    for place, (_, mask) in media.items():
        here = keep & (ids == place)
        number = here.cumsum(dim=1) - 1
        last = mask.shape[1] - 1
        count = mask.sum(dim=2).gather(1, number.clamp(0, last)).masked_fill(number > last, 0)
        repeats = torch.where(here, count if inserted else count.clamp(max=1), repeats)
        asked[place] = torch.arange(last + 1, device=ids.device) < here.sum(dim=1, keepdim=True)
    lengths = repeats.sum(dim=1)
    source = torch.arange(repeats.numel(), device=ids.device).repeat_interleave(repeats.flatten())
    flat_ids = ids.flatten()[source]
    embeds = embed(flat_ids)
    for place, (tokens, mask) in media.items() if inserted else ():
        # those of a row that are asked for come in the order of their places, as the places do
        there = (flat_ids == place).nonzero().squeeze(1)
        embeds = embeds.index_copy(0, there, tokens[mask & asked[place].unsqueeze(2)].to(embeds.dtype))
    row = source // ids.shape[1]
    position = torch.arange(len(row), device=ids.device) - (lengths.cumsum(0) - lengths)[row]
    return Spliced(embeds, flat_ids, flags.flatten()[source], row, position, lengths)


def lay_out(spliced: Spliced, *, room: int | None) -> Lines:
    """Lines for the rows.

    Args:
        spliced: the tokens.
        room: tokens that rows can share a line of, the longest first, each where it first fits; None: a line a row.
            A longer row has a line for itself.
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


def at_right_end(spliced: Spliced) -> Lines:
    """A line a row, each ending where the longest does, as what is to be continued has to."""
    lines = lay_out(spliced, room=None)
    return lines._replace(slot=lines.slot + lines.width - spliced.lengths[spliced.row])


def _packed(lengths: Sequence[int], room: int) -> list[tuple[int, int, int]]:
    """By row its line, what stands before it there, and how many rows do; first fit by falling length."""
    filled: list[int] = []
    held: list[int] = []
    places = [(0, 0, 0)] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        at = next((n for n, used in enumerate(filled) if used + lengths[row] <= room), len(filled))
        if at == len(filled):
            filled.append(0)
            held.append(0)
        places[row] = (at, filled[at], held[at])
        filled[at] += lengths[row]
        held[at] += 1
    return places


def within_rows(row: Tensor, dtype: torch.dtype) -> Tensor:
    """What may be read in lines that rows share, to be added to scores: (P, 1, T, T), 0 or the least of `dtype`.

    Args:
        row: (P, T), int64, the row of each token; -1 where there is none, which reads itself.
        dtype: of the scores.
    """
    same = (row.unsqueeze(2) == row.unsqueeze(1)) & (row >= 0).unsqueeze(1)
    sees = (same | torch.eye(row.shape[1], dtype=torch.bool, device=row.device)).tril()
    return torch.zeros(sees.shape, dtype=dtype, device=row.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


def beside(spliced: Spliced, lines: Lines, media: Mapping[int, Media]) -> Beside:
    """Media that stand beside the text: each token reads the last one of its row that was spoken of, of each place.

    Args:
        spliced: with a token for the place of each medium that is there.
        lines: where they stand; rows that share a line do not read each other's media.
        media: by the id of their place.
    """
    tokens = torch.cat([m.tokens.flatten(1, 2) for m in media.values()], dim=1)  # (B, C, D)
    start = spliced.lengths.cumsum(0) - spliced.lengths
    masks = []
    for place, m in media.items():
        spoken = (spliced.ids == place).long().cumsum(0)
        before = torch.cat([spoken.new_zeros(1), spoken])[start]
        last = spoken - before[spliced.row] - 1  # -1: of none yet
        chosen = torch.arange(m.mask.shape[1], device=last.device) == last.unsqueeze(1)
        masks.append((chosen.unsqueeze(2) & m.mask[spliced.row]).flatten(1))
    mask = torch.cat(masks, dim=1)  # (S, C)
    if lines.rank is None:
        return Beside(tokens, lines.put(mask, False))
    most = int(lines.rank.max()) + 1
    held = tokens.new_zeros(lines.number * most, *tokens.shape[1:])
    held = held.index_copy(0, lines.line * most + lines.rank, tokens).unflatten(0, (lines.number, most)).flatten(1, 2)
    own = torch.arange(most, device=mask.device) == lines.rank[spliced.row].unsqueeze(1)
    return Beside(held, lines.put((own.unsqueeze(2) & mask.unsqueeze(1)).flatten(1), False))
