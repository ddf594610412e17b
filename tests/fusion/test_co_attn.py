"""CoAttn against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.co_attn import CoAttn
from mmtrain.layers.attention import AttentionMaps
from mmtrain.types import Features
from tests.plain_attention import DIMS, assert_is, block, cut, embed, feed, linear, make_random, norm, softmax_mix


def make(dims: dict[str, int]) -> CoAttn:
    fusion = CoAttn(dims=dims, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: CoAttn, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    x, maps = {m: y for m, y in embed(tokens, fusion.streams).items() if len(y)}, {}
    for layer in fusion.layers:
        new = {}
        heads = {m: linear(norm(y, layer.norms[m]), layer.attn.qkv[m]).chunk(3, dim=1) for m, y in x.items()}
        for m, y in x.items():
            others = [o for o in x if o != m]
            answers = [softmax_mix(heads[m][0], heads[o][1], heads[o][2]) for o in others]
            for o, (_, weights) in zip(others, answers, strict=True):
                maps |= cut(weights / len(others), {m: y}, {o: x[o]})
            if others:
                y = y + linear(sum(mixed for mixed, _ in answers) / len(others), layer.attn.proj[m])
            y = y + feed(y, layer.feed[m])
            new[m], weights = block(y, layer.blocks[m])
            maps |= cut(weights, {m: y}, {m: y})
        x = new
    return norm(torch.cat(list(x.values())), fusion.norm), maps


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...]) -> None:
    fusion = make({m: DIMS[m] for m in modalities})
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_each_other_stream_has_an_equal_say_whatever_its_length() -> None:
    """Repeating every token of a stream changes neither its softmax output nor, unlike in cross_attn, its weight."""
    fusion = make(DIMS)
    short = {m: torch.randn(1, 2, width, dtype=torch.float64) for m, width in DIMS.items()}
    longer = short | {"audio": short["audio"].repeat(1, 30, 1)}
    outs = [
        fusion({m: Features(x, torch.ones(x.shape[:2], dtype=torch.bool)) for m, x in given.items()}).tokens
        for given in (short, longer)
    ]
    torch.testing.assert_close(outs[0][:, :2], outs[1][:, :2], rtol=0, atol=1e-12)
    torch.testing.assert_close(outs[0][:, 2:], outs[1][:, 60:], rtol=0, atol=1e-12)


def test_one_modality_has_its_blocks_only() -> None:
    fusion = make({"image": 4})
    assert {name.split(".")[2] for name, _ in fusion.layers.named_parameters("layers")} == {"blocks"}


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        CoAttn(dims=DIMS, dim=8, depth=1, num_heads=3, mlp_ratio=2.0, dropout=0.0)
