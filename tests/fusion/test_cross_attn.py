"""CrossAttn against a version without masks: each sample alone, with its valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.cross_attn import CrossAttn
from mmtrain.layers.attention import AttentionMaps
from tests.plain_attention import DIMS, assert_is, attention, block, cut, linear, make_random, norm


def plain(fusion: CrossAttn, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    names, maps = sorted(tokens), {}
    x = {m: linear(tokens[m], fusion.projections[m]) + fusion.kinds[m] for m in names}
    for layer in fusion.layers:
        seen = {}
        for m in names:
            others = {o: norm(x[o], layer.norms[o]) for o in names if o != m}
            seen[m] = x[m]
            if others:
                query = norm(x[m], layer.norms[m])
                added, weights = attention(query, torch.cat(list(others.values())), layer.cross[m])
                seen[m] = x[m] + added
                maps |= cut(weights, {m: query}, others)
        for m in names:
            x[m], weights = block(seen[m], layer.blocks[m])
            maps |= cut(weights, {m: x[m]}, {m: x[m]})
    return norm(torch.cat([x[m] for m in names]), fusion.norm), maps


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_without_masks(modalities: tuple[str, ...]) -> None:
    dims = {m: DIMS[m] for m in modalities}
    fusion = CrossAttn(dims=dims, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    make_random(fusion)
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_one_modality_has_nothing_to_read_and_no_weights_for_it() -> None:
    fusion = CrossAttn(dims={"image": 4}, dim=8, depth=1, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    assert not [name for name, _ in fusion.named_parameters() if "cross" in name]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        CrossAttn(dims={"image": 4}, dim=8, depth=1, num_heads=3, mlp_ratio=2.0, dropout=0.0)
