"""Each row equals its own single run, and there is one run per length."""

import math

import pytest
import torch
from torch import Tensor

from mmtrain.layers.by_length import by_length

MASK = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]
).bool()


def halves(x: Tensor) -> Tensor:
    """Map (N, l, 3) to (N, ceil(l / 2), 3); each token depends on its complete row."""
    return x.cumsum(dim=1)[:, ::2] * x.mean(dim=(1, 2), keepdim=True)


def test_values_and_gradients_are_those_of_each_row_by_itself() -> None:
    values = torch.randn(6, 5, 3, dtype=torch.float64).requires_grad_()
    copy = values.detach().clone().requires_grad_()
    tokens, mask = by_length(values, MASK, halves)
    assert tokens.shape == (6, 3, 3) and mask.sum(dim=1).tolist() == [3, 1, 0, 1, 3, 1]
    assert not tokens[~mask].any()
    expected = torch.zeros(6, 3, 3, dtype=torch.float64)
    for row in (0, 1, 3, 4, 5):
        alone = halves(copy[row][MASK[row]].unsqueeze(0))[0]
        expected[row, : len(alone)] = alone
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-14)
    weight = torch.randn_like(expected)
    (tokens * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(values.grad, copy.grad, rtol=0, atol=1e-14)


def test_rows_of_one_length_run_together_and_see_no_padding() -> None:
    seen = []

    def run(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return halves(x)

    values = torch.randn(6, 5, 3)
    clean = by_length(values, MASK, run)
    assert seen == [(2, 5, 3), (2, 2, 3), (1, 1, 3)]
    dirty = by_length(values.masked_fill(~MASK.unsqueeze(-1), math.nan), MASK, run)
    assert torch.equal(clean.tokens, dirty.tokens) and torch.equal(clean.mask, dirty.mask)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3, 5, 5)])
def test_values_may_have_any_shape(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    tokens, there = by_length(values, mask, lambda x: x.flatten(2) if x.ndim > 2 else x.unsqueeze(-1))
    assert torch.equal(there, mask) and torch.equal(tokens[0], values[0].reshape(4, -1))
