"""MulT against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.mult import MulT
from mmtrain.layers.attention import AttentionMaps
from tests.plain_attention import DIMS, assert_is, block, cut, embed, feed, linear, make_random, norm, read


def make(dims: dict[str, int], depth: int = 2, self_depth: int = 2) -> MulT:
    fusion = MulT(dims=dims, dim=8, depth=depth, self_depth=self_depth, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: MulT, tokens: dict[str, Tensor]) -> tuple[Tensor, AttentionMaps]:
    x, out, maps = embed(tokens, fusion.streams), [], {}
    for a in (a for a in x if len(x[a])):
        target, parts = fusion.targets[a], []
        for b in (b for b in x if b != a):
            z = x[a]
            for layer in target.stacks[b]:
                if len(x[b]):
                    added, weights = read(z, x[b], layer.read)
                    maps |= cut(weights, {a: z}, {b: x[b]})
                    z = z + added
                z = z + feed(z, layer.feed)
            parts.append(z)
        y = torch.cat(parts, dim=1)
        for layer in target.blocks:
            y, weights = block(y, layer)
        maps |= cut(weights, {a: y}, {a: y})
        out.append(linear(norm(y, target.norm), target.out))
    return torch.cat(out), maps


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_maps_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...]) -> None:
    fusion = make({m: DIMS[m] for m in modalities})
    assert_is(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_there_is_a_stack_for_every_ordered_pair_and_none_for_one_modality() -> None:
    assert {a: set(target.stacks) for a, target in make(DIMS).targets.items()} == {a: set(DIMS) - {a} for a in DIMS}
    assert make(DIMS).targets["text"].out.in_features == 2 * 8
    assert not make({"text": 3}).targets["text"].stacks


@pytest.mark.parametrize(("depth", "self_depth", "name"), [(0, 1, "depth"), (1, 0, "self_depth")])
def test_no_layers_are_refused(depth: int, self_depth: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        make(DIMS, depth, self_depth)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        MulT(dims=DIMS, dim=8, depth=1, self_depth=1, num_heads=3, mlp_ratio=2.0, dropout=0.0)
