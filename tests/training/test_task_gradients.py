"""Gradients of single losses, and inner products of gradients of any length."""

import pytest
import torch

from mmtrain.training.task_gradients import inner_products, jacobian


@pytest.mark.parametrize("scale", [1.0, 1e-24, 1e24])
def test_products_of_gradients_are_taken_in_float64(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of gradients of 1e-24 or 1e24 are no float32 numbers, nor is the angle between nearly parallel ones."""
    monkeypatch.setattr("mmtrain.training.task_gradients.COLUMNS", 64)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1000, generator=generator)
    rows[1] = rows[0] + 1e-4 * rows[1]
    rows = rows * scale
    weights = torch.nn.Parameter(torch.zeros(1000))
    result = jacobian([(row * weights).sum() for row in rows], [weights], loss_scale=1.0)
    torch.testing.assert_close(inner_products(result), rows.double() @ rows.double().T, rtol=1e-12, atol=0)


def test_a_loss_that_does_not_depend_on_an_input_has_zeros() -> None:
    one, other = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    losses = [one.sum(), (2.0 * other).sum(), torch.ones(())]
    expected = [[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0, 2.0], [0.0] * 5]
    assert jacobian(losses, [one, other], loss_scale=1024.0).tolist() == expected
    assert jacobian(losses, [], loss_scale=1.0).tolist() == [[0.0]] * 3
