"""GatedCrossAttn against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.gated_cross_attn import GatedCrossAttn
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, block, cut, embed, feed, make_random, norm, read


def make(dims: dict[str, int], reader: str | None = None, depth: int = 2) -> GatedCrossAttn:
    return GatedCrossAttn(
        dims=dims, dim=8, query_modality=reader, depth=depth, num_heads=2, mlp_ratio=2.0, dropout=0.0
    ).double()


def plain(fusion: GatedCrossAttn, tokens: dict[str, Tensor], reader: str) -> tuple[Tensor, AttentionMaps]:
    x, maps = embed(tokens, fusion.streams), {}
    y = x.pop(reader)
    name, y = (reader, y) if len(y) else ("fused", fusion.stand_in)
    context = torch.cat(list(x.values()))
    for layer in fusion.layers:
        if len(context):
            added, weights = read(y, context, layer.gated.read)
            maps |= cut(weights, {name: y}, x)
            y = y + torch.tanh(layer.gated.read_gate) * added
        y = y + torch.tanh(layer.gated.feed_gate) * feed(y, layer.gated.feed)
        y, weights = block(y, layer.block)
        maps |= cut(weights, {name: y}, {name: y})
    return norm(y, fusion.norm), maps


@pytest.mark.parametrize("reader", [None, "text", "image"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], reader: str | None) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, reader)
    make_random(fusion)
    assert_is(fusion, lambda tokens: plain(fusion, tokens, reader or "text"), modalities)


def test_the_reader_is_text_or_else_the_first_by_name() -> None:
    assert make({"audio": 5, "text": 3}).query_modality == "text"
    assert make({"image": 4, "audio": 5}).query_modality == "audio"


def test_gates_start_at_zero_so_the_others_have_no_influence_at_first_and_the_gates_a_gradient() -> None:
    fusion, there = make({"text": 3, "image": 4}), torch.ones(1, 2, dtype=torch.bool)
    text = Features(torch.randn(1, 2, 3, dtype=torch.float64), there)
    one, other = (
        fusion({"text": text, "image": Features(torch.randn(1, 2, 4, dtype=torch.float64), there)}).tokens
        for _ in range(2)
    )
    assert torch.equal(one, other)
    (one * torch.randn_like(one)).sum().backward()
    for name, parameter in fusion.layers.named_parameters():
        assert parameter.grad.any() == (".gated." not in name or "gate" in name.rpartition(".")[2]), name


def test_the_stand_in_is_valid_where_the_reader_lacks_and_something_is_there() -> None:
    masks = {m: torch.tensor(rows).unsqueeze(1) for m, rows in {"text": [1, 1, 0, 0], "image": [1, 0, 1, 0]}.items()}
    features = {m: Features(torch.randn(4, 1, DIMS[m], dtype=torch.float64), mask.bool()) for m, mask in masks.items()}
    _, mask = make({m: DIMS[m] for m in masks})(features)
    assert mask.tolist() == [[True, False], [True, False], [False, True], [False, False]]


def test_one_modality_has_its_blocks_only() -> None:
    fusion = make({"image": 4})
    assert fusion.stand_in is None and not [name for name, _ in fusion.named_parameters() if "gated" in name]


def test_a_reader_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(
        ValueError, match="query_modality = video is not among the modalities; set it to audio, image, text or"
    ):
        make(DIMS, "video")


def test_no_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^depth = 0; set depth to 1 or more"):
        make(DIMS, depth=0)
