"""Token streams and their cross-attention, against explicit formulas."""

import math

import pytest
import torch
from torch import nn

from mmtrain.layers.streams import (
    CrossBlock,
    FeedForward,
    Read,
    Streams,
    any_valid,
    check_counts,
    cross_weights,
    lengths,
)
from mmtrain.types import Features
from tests.plain_attention import feed, linear, make_random, read

MASK = torch.tensor([[True, True, True], [True, False, True], [False] * 3])
SIZES = {"dim": 8, "num_heads": 2, "dropout": 0.0}


def test_each_stream_has_its_projection_and_its_kind_and_garbage_under_its_mask_is_cleared() -> None:
    streams = Streams({"text": 3, "image": 4}, 8)
    make_random(streams)
    tokens = {m: torch.randn(3, 3, width, dtype=torch.float64) for m, width in (("text", 3), ("image", 4))}
    out = streams({m: Features(x.masked_fill(~MASK.unsqueeze(2), math.nan), MASK) for m, x in tokens.items()})
    assert list(out) == ["image", "text"] and lengths(out) == {"image": 3, "text": 3}
    for m, x in out.items():
        expected = linear(tokens[m], streams.projections[m]) + streams.kinds[m]
        torch.testing.assert_close(x[MASK], expected[MASK], rtol=0, atol=1e-12)
        assert x.isfinite().all()


def test_a_cross_block_reads_then_feeds_and_nothing_is_read_where_nothing_is() -> None:
    block = CrossBlock(mlp_ratio=2.0, **SIZES)
    make_random(block)
    x, context = torch.randn(3, 2, 8, dtype=torch.float64), torch.randn(3, 3, 8, dtype=torch.float64)
    out, weights = block(x, context, MASK), cross_weights(block, x, context, MASK)
    for row in range(3):
        y, valid = x[row], MASK[row]
        if valid.any():
            added, expected = read(y, context[row, valid], block.read)
            torch.testing.assert_close(block.read(x, context, MASK)[row], added, rtol=0, atol=1e-12)
            torch.testing.assert_close(weights[row][:, valid], expected, rtol=0, atol=1e-12)
            y = y + added
        torch.testing.assert_close(out[row], y + feed(y, block.feed), rtol=0, atol=1e-12)
        assert not weights[row][:, ~valid].any()


@pytest.mark.parametrize("part", [Read(**SIZES | {"dropout": 0.5}), FeedForward(dim=8, mlp_ratio=2.0, dropout=0.5)])
def test_dropout_is_for_training_only(part: nn.Module) -> None:
    x = torch.randn(3, 3, 8)
    inputs = (x, x, MASK) if isinstance(part, Read) else (x,)
    assert not torch.equal(part(*inputs), part(*inputs))
    part.eval()
    assert torch.equal(part(*inputs), part(*inputs))


def test_anything_is_a_token_of_any_stream() -> None:
    masks = {"a": torch.tensor([[True, False], [False, False], [False, False]]), "b": torch.tensor([[0], [1], [0]]) > 0}
    assert any_valid(masks).tolist() == [[True], [True], [False]]


def test_counts_below_one_are_refused_by_name() -> None:
    check_counts({"depth": 1, "num_latents": 2})
    with pytest.raises(ValueError, match=r"^num_latents = -1; set num_latents to 1 or more"):
        check_counts({"depth": 1, "num_latents": -1})
