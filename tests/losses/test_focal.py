"""Focal loss against plain loops and against cross entropy, values and gradients."""

import math

import pytest
import torch
from torch import Tensor

from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.losses.focal import focal
from tests.batches import assert_same_bits

ROWS, CLASSES = 9, 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)


def make(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    valid = torch.rand(ROWS) < 0.6
    valid[0], valid[1] = True, False
    logits = 3 * torch.randn(ROWS, CLASSES, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(0, CLASSES, (ROWS,)), valid


def plain(logits: Tensor, shares: Tensor, valid: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """The formula, one class of one row at a time."""
    total = logits.new_zeros(())
    for row in valid.nonzero().flatten().tolist():
        p = logits[row].exp() / logits[row].exp().sum()
        for c in range(CLASSES):
            weight = 1.0 if weights is None else float(weights[c])
            total = total - weight * shares[row, c] * (1 - p[c]) ** gamma * p[c].log()
    return total


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("soft", [False, True])
def test_it_is_the_formula(gamma: float, label_smoothing: float, weights: Tensor | None, soft: bool) -> None:
    logits, classes, valid = make()
    shares = torch.rand(ROWS, CLASSES, dtype=torch.float64).softmax(dim=1) if soft else torch.eye(CLASSES)[classes]
    smooth = shares.double() * (1 - label_smoothing) + label_smoothing / CLASSES
    targets = shares if soft else classes
    total, count = focal(logits, targets, valid, gamma=gamma, label_smoothing=label_smoothing, weights=weights)
    expected = plain(logits, smooth, valid, gamma, weights)
    assert count == valid.sum() and total.dtype is torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    (mine,), (theirs,) = torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_without_gamma_it_is_cross_entropy(label_smoothing: float, weights: Tensor | None) -> None:
    logits, targets, valid = make()
    total, _ = focal(logits, targets, valid, gamma=0.0, label_smoothing=label_smoothing, weights=weights)
    expected, _ = cross_entropy(logits, targets, valid, label_smoothing=label_smoothing, weights=weights)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_certain_row_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    total, _ = focal(logits, torch.tensor([0, 0]), torch.tensor([True, True]), gamma=gamma)
    assert total.item() == pytest.approx(200.0)
    total.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and not logits.grad[0].any()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("soft", [False, True])
def test_rows_that_are_not_valid_change_no_bit(garbage: float, soft: bool) -> None:
    results = []
    for dirty in (False, True):
        logits, targets, valid = make()
        targets = torch.eye(CLASSES)[targets] if soft else targets
        if dirty:
            logits = torch.where(valid.unsqueeze(1), logits, garbage).detach().requires_grad_()
            unread = ~valid.unsqueeze(1) if soft else ~valid
            targets = targets.masked_fill(unread, garbage if soft else 10**6)
        total, _ = focal(logits, targets, valid, gamma=2.0, label_smoothing=0.1, weights=WEIGHTS)
        total.backward()
        results.append({"loss": total.detach(), "gradient": logits.grad})
    assert_same_bits(*results)


def test_without_a_valid_row_it_is_nothing_with_a_gradient_of_zero() -> None:
    logits, targets, valid = make()
    total, count = focal(logits, targets, valid & False, gamma=2.0, label_smoothing=0.1)
    assert (total.item(), count.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert not gradient.any()


def test_it_is_float32_for_bfloat16_logits() -> None:
    logits, targets, valid = make()
    rough = logits.detach().bfloat16()
    total, _ = focal(rough, targets, valid, gamma=2.0)
    assert total.dtype is torch.float32
    assert torch.equal(total, focal(rough.float(), targets, valid, gamma=2.0)[0])
