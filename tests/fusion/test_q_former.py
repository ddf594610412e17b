"""QFormer against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.q_former import QFormer
from mmtrain.layers.attention import AttentionMaps
from tests.plain_attention import DIMS, assert_is, attention, cut, embed, feed, make_random, norm, read


def make(
    dims: dict[str, int], text: str | None, *, depth: int = 3, cross_attention_frequency: int = 2, queries: int = 3
) -> QFormer:
    fusion = QFormer(
        dims=dims,
        dim=8,
        text=text,
        num_queries=queries,
        depth=depth,
        cross_attention_frequency=cross_attention_frequency,
        num_heads=2,
        mlp_ratio=2.0,
        dropout=0.0,
    )
    make_random(fusion)
    return fusion


def plain(
    fusion: QFormer, tokens: dict[str, Tensor], text: str | None, cross_attention_frequency: int
) -> tuple[Tensor, AttentionMaps]:
    x, q, maps = embed(tokens, fusion.streams), fusion.queries, {}
    t = x.pop(text) if text else torch.zeros(0, 8, dtype=torch.float64)
    context = torch.cat(list(x.values()))
    for number, layer in enumerate(fusion.layers):
        normed = norm(torch.cat([q, t]), layer.norm)
        added, weights = attention(normed, normed, layer.attn)
        names = {"fused": q, **({text: t} if text else {})}
        maps |= cut(weights, names, names)
        q, t = q + added[: len(q)], t + added[len(q) :]
        if number % cross_attention_frequency == 0 and len(context):
            added, weights = read(q, context, layer.read)
            maps |= cut(weights, {"fused": q}, x)
            q = q + added
        q = q + feed(q, layer.feed)
        if len(t) and number < len(fusion.layers) - 1:
            t = t + feed(t, layer.feed_text)
    return norm(q, fusion.norm), maps


@pytest.mark.parametrize(("depth", "cross_attention_frequency"), [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], depth: int, cross_attention_frequency: int
) -> None:
    fusion = make(
        {m: DIMS[m] for m in modalities}, None, depth=depth, cross_attention_frequency=cross_attention_frequency
    )
    assert_is(fusion, lambda tokens: plain(fusion, tokens, "text", cross_attention_frequency), modalities)


def test_another_modality_can_take_the_place_of_text() -> None:
    fusion = make(DIMS, "audio")
    assert_is(fusion, lambda tokens: plain(fusion, tokens, "audio", 2), tuple(DIMS))


def test_without_text_the_queries_share_with_none_and_read_all() -> None:
    fusion = make({"image": 4, "audio": 5}, None)
    assert fusion.sharing == [] and fusion.others == ["audio", "image"]
    assert not [name for name, _ in fusion.named_parameters() if "feed_text" in name]


def test_text_alone_has_no_cross_attention() -> None:
    assert not [name for name, _ in make({"text": 3}, None).named_parameters() if ".read." in name]


def test_a_text_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(ValueError, match="text = caption is not among the modalities; set it to audio, image, text or"):
        make(DIMS, "caption")


@pytest.mark.parametrize("name", ["num_queries", "depth", "cross_attention_frequency"])
def test_no_queries_and_no_layers_are_refused(name: str) -> None:
    counts = {"num_queries": 1, "depth": 1, "cross_attention_frequency": 1, name: 0}
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        QFormer(dims=DIMS, dim=8, text=None, num_heads=2, mlp_ratio=2.0, dropout=0.0, **counts)
