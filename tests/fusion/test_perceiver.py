"""Perceiver against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.perceiver import Perceiver
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, cut, embed, feed, make_random, norm, read


def make(dims: dict[str, int], num_latents: int = 3, depth: int = 2) -> Perceiver:
    fusion = Perceiver(dims=dims, dim=8, num_latents=num_latents, depth=depth, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: Perceiver, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    x, z, maps = embed(tokens, fusion.streams), fusion.latents, {}
    for layer in fusion.layers:
        added, weights = read(z, torch.cat([*x.values(), z]), layer.read)
        maps = cut(weights, {"fused": z}, {**x, "fused": z})
        z = z + added
        z = z + feed(z, layer.feed)
    return norm(z, fusion.norm), maps


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...]) -> None:
    fusion = make({m: DIMS[m] for m in modalities})
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


@pytest.mark.parametrize("length", [1, 50])
def test_there_are_as_many_tokens_as_latents_whatever_comes_in(length: int) -> None:
    tokens = torch.randn(2, length, 3, dtype=torch.float64)
    out, mask = make({"text": 3})({"text": Features(tokens, torch.ones(2, length, dtype=torch.bool))})
    assert out.shape == (2, 3, 8) and mask.all()


@pytest.mark.parametrize(("num_latents", "depth", "name"), [(0, 1, "num_latents"), (1, 0, "depth")])
def test_no_latents_and_no_layers_are_refused(num_latents: int, depth: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        make(DIMS, num_latents, depth)
