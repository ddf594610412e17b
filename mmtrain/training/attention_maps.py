"""What attention maps say to a person: what words read of their picture, and how much each modality is read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import AttentionMap, View

NUM_SAMPLES = 6
NUM_WORDS = 8
MAX_PREFIX = 5  # tokens in front of the patches: a class token and registers


def attention_items(
    view: View, *, image: str, text: str | None, words: Callable[[Sequence[int]], list[str]]
) -> list[AttentionMap]:
    """Maps over the pictures of a few samples that have all that is needed.

    Args:
        view: of a batch.
        image: the modality whose tokens are patches of a picture, behind a class token or registers if there are any.
        text: the modality that asks, if the fusion has its tokens read the picture; else the fused tokens ask.
        words: the tokens of a text by their ids.

    Returns:
        Nothing where the fusion has no such maps, or the tokens of the picture form no square.
    """
    maps = view.attention()
    query = next((q for q in (text, "fused") if q is not None and (q, image) in maps), None)
    if query is None:
        return []
    weights = maps[query, image].float()
    side = math.isqrt(weights.shape[2])
    if side < 2 or weights.shape[2] - side * side > MAX_PREFIX:
        return []
    patches = weights[:, :, -side * side :].unflatten(2, (side, side))
    present = view.batch.present[image] & (view.batch.present[text] if text is not None else view.batch.present[image])
    rows = [row for row in present.nonzero().squeeze(1).tolist() if view.batch.ids[row]]
    rows = rows[:: max(len(rows) // NUM_SAMPLES, 1)][:NUM_SAMPLES]  # neighbours are often alike
    results = []
    for row in rows:
        query_mask = view.features(query).mask[row] if query != "fused" else None
        names, grids = _by_word(patches[row], _ids(view, text, row) if query == text else None, query_mask, words)
        results.append(
            AttentionMap(id=view.batch.ids[row], query=query, words=names, grids=[g.tolist() for g in grids])
        )
    return results


def attention_share(maps: AttentionMaps, modalities: Sequence[str]) -> dict[str, Tensor]:
    """How much of their attention the tokens of a batch gave to each modality: a scalar for each, float64.

    Only what chooses between modalities counts: a softmax over tokens of several. Where a stream reads another one and
    then itself, each reading sums to 1, with any weight; where it reads several by a softmax each, to even parts.
    """
    mass = {m: torch.zeros((), dtype=torch.double) for m in modalities}
    for query in dict.fromkeys(query for query, _ in maps):
        read = {key: weights for (asks, key), weights in maps.items() if asks == query}
        if not _is_one_softmax(read):
            read = {key: weights for key, weights in read.items() if key != query}
        chosen = [m for m in modalities if m in read]
        if len(chosen) > 1 and _is_one_softmax(read) and not _is_even(read):
            mass |= {m: mass[m].to(read[m].device) + read[m].double().sum() for m in chosen}
    return mass


def _is_one_softmax(read: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a token over all that it reads sum to 1 at most."""
    if not read:
        return False
    sums = torch.stack([weights.sum(dim=2) for weights in read.values()]).sum(dim=0)
    return bool((sums <= 1.001).all())


def _is_even(read: Mapping[str, Tensor]) -> bool:
    """Whether every token gives the same to each modality that is there."""
    sums = torch.stack([weights.sum(dim=2) for weights in read.values()])
    least = sums.masked_fill(sums == 0, float("inf")).amin(dim=0)
    return bool((sums.amax(dim=0) - least <= 0.001).all())


def _ids(view: View, text: str | None, row: int) -> list[int] | None:
    """The token ids of a row's text."""
    assert text is not None
    values, mask = view.batch.inputs[text]
    return (values[row] if mask is None else values[row][mask[row]]).tolist()


def _by_word(
    patches: Tensor, ids: list[int] | None, query_patches: Tensor | None, words: Callable[[Sequence[int]], list[str]]
) -> tuple[list[str], list[Any]]:
    """A map for each word where there is a token for each, else one of all that ask together.

    Args:
        patches: (Tq, side, side).
        ids: of the words.
        query_patches: (Tq,), bool, the tokens that are there; None for all.
        words: the words of ids.
    """
    maps = patches if query_patches is None else patches[query_patches]
    if ids is None or len(ids) != len(maps):
        return ["all together"], [maps.mean(dim=0)]
    pairs = [(word, grid) for word, grid in zip(words(ids), maps, strict=True) if not _is_mark(word)]
    pairs = pairs[:NUM_WORDS] or [("all together", maps.mean(dim=0))]
    # what tokenizers put before a word or a piece of one
    return [word.removeprefix("##").lstrip("\u2581\u0120") or word for word, _ in pairs], [grid for _, grid in pairs]


def _is_mark(word: str) -> bool:
    """Whether a token is no word, such as [CLS] or </s>."""
    return len(word) > 2 and (word[0], word[-1]) in {("[", "]"), ("<", ">")}
