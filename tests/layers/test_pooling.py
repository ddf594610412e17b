"""Pooling against loops; values under a False mask have no effect."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.layers.pooling import FirstPool, LastPool, MeanPool, make_pool
from mmtrain.types import Features

MASK = torch.tensor([[True, True, True], [False, True, True], [True, False, False], [False] * 3])


def loop(pool: nn.Module, tokens: Tensor) -> Tensor:
    rows = []
    for row, mask in zip(tokens, MASK, strict=True):
        valid = [token for token, is_valid in zip(row, mask, strict=True) if is_valid]
        if not valid:
            rows.append(torch.zeros_like(row[0]))
        elif isinstance(pool, MeanPool):
            rows.append(sum(valid) / len(valid))
        else:
            rows.append(valid[0 if isinstance(pool, FirstPool) else -1])
    return torch.stack(rows)


@pytest.mark.parametrize("pool", [MeanPool(), FirstPool(), LastPool()])
def test_values_and_gradients_are_those_of_the_valid_tokens(pool: nn.Module) -> None:
    tokens = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    out, expected = pool(Features(tokens, MASK)), loop(pool, tokens)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)
    weight = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weight).sum(), tokens)
    (reference,) = torch.autograd.grad((expected * weight).sum(), tokens)
    torch.testing.assert_close(mine, reference, rtol=0, atol=1e-14)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("pool", [MeanPool(), FirstPool(), LastPool()])
def test_what_stands_under_a_false_mask_changes_no_bit(pool: nn.Module, garbage: float) -> None:
    clean = torch.randn(4, 3, 5)
    dirty = torch.where(MASK.unsqueeze(-1), clean, garbage).requires_grad_()
    out = pool(Features(dirty, MASK))
    assert torch.equal(out, pool(Features(clean, MASK)))
    out.square().sum().backward()
    assert dirty.grad.isfinite().all()
    assert not dirty.grad[~MASK].any()


@pytest.mark.parametrize("pool", [MeanPool(), FirstPool(), LastPool()])
def test_the_dtype_stays(pool: nn.Module) -> None:
    assert pool(Features(torch.randn(4, 3, 5).bfloat16(), MASK)).dtype is torch.bfloat16


def test_a_pooling_has_a_name() -> None:
    assert [type(make_pool(name)) for name in ("class", "mean", "last")] == [FirstPool, MeanPool, LastPool]
    with pytest.raises(ValueError, match="pooling = max; set it to class, mean or last"):
        make_pool("max")
