"""Bottleneck against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.bottleneck import Bottleneck
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, block, cut, embed, make_random, norm


def make(dims: dict[str, int], depth: int, fusion_layer: int) -> Bottleneck:
    fusion = Bottleneck(
        dims=dims,
        dim=8,
        depth=depth,
        fusion_layer=fusion_layer,
        num_bottlenecks=2,
        num_heads=2,
        mlp_ratio=2.0,
        dropout=0.0,
    )
    make_random(fusion)
    return fusion


def plain(fusion: Bottleneck, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    x = {m: y for m, y in embed(tokens, fusion.streams).items() if len(y)}
    shared, maps = fusion.bottlenecks, {}
    for layer in fusion.own:
        x = {m: block(y, layer.blocks[m])[0] for m, y in x.items()}
    for layer in fusion.layers:
        told, among = torch.zeros_like(shared), 0
        for m, y in x.items():
            together, weights = block(torch.cat([y, shared]), layer.blocks[m])
            names = {m: y, "fused": shared}
            maps |= cut(weights, names, names)
            maps["fused", m] = maps["fused", m] / len(x)
            among = among + maps["fused", "fused"] / len(x)
            x[m], told = together[: len(y)], told + together[len(y) :] / len(x)
        shared, maps["fused", "fused"] = told, among
    return norm(torch.cat([shared, *x.values()]), fusion.norm), maps


@pytest.mark.parametrize(("depth", "fusion_layer"), [(1, 0), (2, 0), (3, 1)])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], depth: int, fusion_layer: int
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, depth, fusion_layer)
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


@pytest.mark.parametrize(("depth", "reaches"), [(1, False), (2, True)])
def test_tokens_hear_of_each_other_from_the_second_layer_on_and_bottlenecks_from_the_first(
    depth: int, reaches: bool
) -> None:
    fusion, there = make({"text": 3, "image": 4}, depth, 0), torch.ones(1, 2, dtype=torch.bool)
    image = Features(torch.randn(1, 2, 4, dtype=torch.float64), there)
    one, other = (
        fusion({"image": image, "text": Features(torch.randn(1, 2, 3, dtype=torch.float64), there)}).tokens
        for _ in range(2)
    )
    assert not torch.allclose(one[:, :2], other[:, :2])  # bottlenecks
    assert torch.allclose(one[:, 2:4], other[:, 2:4]) != reaches  # image


@pytest.mark.parametrize("fusion_layer", [-1, 2])
def test_a_fusion_layer_that_is_none_of_the_layers_is_refused(fusion_layer: int) -> None:
    message = f"fusion_layer = {fusion_layer} is not one of the layers 0 to 1 of depth = 2; set fusion_layer to one"
    with pytest.raises(ValueError, match=message):
        make(DIMS, 2, fusion_layer)


@pytest.mark.parametrize(("depth", "num_bottlenecks", "name"), [(0, 2, "depth"), (1, 0, "num_bottlenecks")])
def test_no_layers_and_no_bottlenecks_are_refused(depth: int, num_bottlenecks: int, name: str) -> None:
    sizes = {"dim": 8, "fusion_layer": 0, "num_heads": 2, "mlp_ratio": 2.0, "dropout": 0.0}
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        Bottleneck(dims=DIMS, depth=depth, num_bottlenecks=num_bottlenecks, **sizes)
