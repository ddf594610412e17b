"""Regression losses against plain loops and torch, values and gradients."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.regression import absolute_error, huber, squared_error
from tests.batches import assert_same_bits

ROWS, NUMBERS = 9, 3
Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
LOSSES: dict[str, tuple[Loss, Callable[..., Tensor]]] = {
    "mse": (squared_error, F.mse_loss),
    "l1": (absolute_error, F.l1_loss),
    "huber": (partial(huber, delta=0.7), partial(F.huber_loss, delta=0.7)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def make() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    valid = torch.rand(ROWS) < 0.6
    valid[0], valid[1] = True, False
    return torch.randn(ROWS, NUMBERS, dtype=torch.float64, requires_grad=True), torch.randn(ROWS, NUMBERS), valid


@every_loss
def test_the_mean_is_that_of_torch_over_the_valid_rows(name: str) -> None:
    mine, reference = LOSSES[name]
    predictions, targets, valid = make()
    total, count = mine(predictions, targets, valid)
    assert count == valid.sum() and total.dtype is torch.float64
    expected = reference(predictions[valid], targets[valid].double())
    torch.testing.assert_close(total / count, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, predictions)[0] for loss in (total / count, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert not gradients[0][~valid].any()


def test_huber_is_squared_near_and_absolute_far() -> None:
    errors, delta = [0.1, -0.5, 0.7, -3.0, 100.0], 0.7
    for error in errors:
        total, _ = huber(torch.tensor([[error]]), torch.zeros(1, 1), torch.tensor([True]), delta=delta)
        near = abs(error) <= delta
        expected = error**2 / 2 if near else delta * (abs(error) - delta / 2)
        assert total.item() == pytest.approx(expected, rel=1e-6)


@every_loss
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_rows_that_are_not_valid_change_no_bit(name: str, garbage: float) -> None:
    results = []
    for dirty in (False, True):
        predictions, targets, valid = make()
        if dirty:
            predictions = torch.where(valid.unsqueeze(1), predictions, garbage).detach().requires_grad_()
            targets = targets.masked_fill(~valid.unsqueeze(1), garbage)
        total, _ = LOSSES[name][0](predictions, targets, valid)
        total.backward()
        results.append({"loss": total.detach(), "gradient": predictions.grad})
    assert_same_bits(*results)


@every_loss
def test_without_a_valid_row_it_is_nothing_with_a_gradient_of_zero(name: str) -> None:
    predictions, targets, valid = make()
    total, count = LOSSES[name][0](predictions, targets, valid & False)
    assert (total.item(), count.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(total, predictions)
    assert not gradient.any()


@every_loss
def test_it_is_float32_for_bfloat16_predictions(name: str) -> None:
    predictions, targets, valid = make()
    rough = predictions.detach().bfloat16()
    total, _ = LOSSES[name][0](rough, targets, valid)
    assert total.dtype is torch.float32
    assert torch.equal(total, LOSSES[name][0](rough.float(), targets, valid)[0])
