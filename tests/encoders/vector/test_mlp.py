"""The MLP against a plain implementation."""

import pytest
import torch
from torch import nn

from mmtrain.encoders.vector.mlp import VectorMLP
from tests.batches import gradients


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_values_are_those_of_the_formula(depth: int) -> None:
    encoder = VectorMLP(in_dim=5, dim=4, num_tokens=3, hidden_dim=7, depth=depth, dropout=0.0).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    values = torch.randn(6, 5, dtype=torch.float64)
    tokens, mask = encoder(values)
    assert tokens.shape == (6, 3, 4) and mask.shape == (6, 3) and mask.all()
    weights = [p for name, p in encoder.named_parameters() if name.startswith(("hidden", "proj"))]
    x = values
    for place, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        x = x @ weight.T + bias
        if place < depth:
            x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = torch.stack([x[:, 0:4], x[:, 4:8], x[:, 8:12]], dim=1)
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(tokens, x * encoder.norm.weight + encoder.norm.bias, rtol=0, atol=1e-12)
    tokens.square().sum().backward()
    assert len(gradients(encoder)) == 2 * depth + 4


def test_one_number_is_enough() -> None:
    encoder = VectorMLP(in_dim=1, dim=4, num_tokens=1, hidden_dim=7, depth=1, dropout=0.0)
    assert encoder(torch.randn(2, 1)).tokens.shape == (2, 1, 4)
