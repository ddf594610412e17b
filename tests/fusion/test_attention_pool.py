"""AttentionPool against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.attention_pool import AttentionPool
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, attention, cut, embed, make_random, mlp, norm


def make(dims: dict[str, int], *, num_queries: int, num_heads: int = 2) -> AttentionPool:
    fusion = AttentionPool(dims=dims, dim=8, num_queries=num_queries, num_heads=num_heads, mlp_ratio=1.5, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: AttentionPool, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    x = embed(tokens, fusion.streams)
    read, weights = attention(fusion.queries, torch.cat(list(x.values())), fusion.attention)
    hidden = norm(fusion.queries + read, fusion.norm1)
    return norm(hidden + mlp(hidden, fusion.mlp), fusion.norm2), cut(weights, {"fused": fusion.queries}, x)


@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], num_queries: int) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, num_queries=num_queries)
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_the_weights_of_a_query_sum_to_one_over_what_is_there() -> None:
    masks = {"text": torch.tensor([[1, 0], [0, 0], [0, 0]]).bool(), "image": torch.tensor([[1], [1], [0]]).bool()}
    features = {m: Features(torch.randn(*mask.shape, DIMS[m]).double(), mask) for m, mask in masks.items()}
    _, maps = make({m: DIMS[m] for m in masks}, num_queries=3)(features, return_attention=True)
    assert {pair: tuple(x.shape) for pair, x in maps.items()} == {
        ("fused", "image"): (3, 3, 1),
        ("fused", "text"): (3, 3, 2),
    }
    total = sum(x.sum(dim=2) for x in maps.values())
    expected = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None].expand(3, 3)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-14)
    assert not maps["fused", "text"][0, :, 1].any() and not maps["fused", "text"][1].any()


def test_no_queries_and_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="num_queries = 0; set num_queries to 1 or more"):
        make(DIMS, num_queries=0)
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        make(DIMS, num_queries=1, num_heads=3)
