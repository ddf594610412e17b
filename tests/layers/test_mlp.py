"""The MLP against its formula."""

import math

import pytest
import torch

from mmtrain.layers.mlp import MLP


@pytest.mark.parametrize("out_dim", [None, 3])
def test_linear_gelu_linear(out_dim: int | None) -> None:
    mlp = MLP(dim=4, hidden_dim=6, out_dim=out_dim).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    expected = hidden @ mlp.fc2.weight.T + mlp.fc2.bias
    out = mlp(x)
    assert out.shape == (2, 5, out_dim or 4)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    wanted = [x, *mlp.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(out.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


def test_dropout_is_for_training_only() -> None:
    mlp = MLP(dim=4, hidden_dim=64, dropout=0.5)
    x = torch.randn(2, 4)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))
