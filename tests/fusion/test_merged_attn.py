"""MergedAttn against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.merged_attn import MergedAttn
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, block, cut, embed, make_random, norm


def make(dims: dict[str, int]) -> MergedAttn:
    fusion = MergedAttn(dims=dims, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: MergedAttn, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    streams, maps = {"fused": fusion.class_token, **embed(tokens, fusion.streams)}, {}
    x = torch.cat(list(streams.values()))
    for layer in fusion.blocks:
        x, weights = block(x, layer)
        maps = cut(weights, streams, streams)
    return norm(x, fusion.norm), maps


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...]) -> None:
    fusion = make({m: DIMS[m] for m in modalities})
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_the_class_token_is_first_and_valid_where_there_is_anything() -> None:
    masks = {"text": torch.tensor([[True, False], [False, False]]), "image": torch.zeros(2, 3, dtype=torch.bool)}
    features = {m: Features(torch.randn(*mask.shape, DIMS[m], dtype=torch.float64), mask) for m, mask in masks.items()}
    _, mask = make({m: DIMS[m] for m in masks})(features)
    assert mask.tolist() == [[True, False, False, False, True, False], [False] * 6]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        MergedAttn(dims=DIMS, dim=8, depth=1, num_heads=3, mlp_ratio=2.0, dropout=0.0)
