"""Tokens of a feature map: order, and the gradient below a norm."""

import pytest
import torch
from torch import nn

from mmtrain.layers.map_tokens import map_tokens


def test_row_by_row() -> None:
    x = torch.randn(2, 5, 3, 4)
    tokens = map_tokens(x)
    assert tokens.shape == (2, 12, 5)
    for row in range(3):
        for column in range(4):
            assert torch.equal(tokens[:, 4 * row + column], x[:, :, row, column])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_below_a_batch_norm_is_right(batch: int, training: bool) -> None:
    norm = nn.BatchNorm2d(5).double().train(training)
    x = torch.randn(batch, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, 5, 3, 3, dtype=torch.float64)
    expected = torch.autograd.grad((norm(x) * weight).sum(), [x, *norm.parameters()])
    tokens = map_tokens(norm(x))
    result = torch.autograd.grad((tokens * weight.flatten(2).transpose(1, 2)).sum(), [x, *norm.parameters()])
    for mine, other in zip(result, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
