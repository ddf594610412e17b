"""Binary cross entropy against plain loops and torch, values and gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.binary_cross_entropy import binary_cross_entropy
from tests.batches import assert_same_bits

ROWS, CLASSES = 9, 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 7.0], dtype=torch.float64)


def make() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    valid = torch.rand(ROWS) < 0.6
    valid[0], valid[1] = True, False
    logits = 3 * torch.randn(ROWS, CLASSES, dtype=torch.float64)
    return logits.requires_grad_(), torch.rand(ROWS, CLASSES).round(decimals=1), valid


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_it_is_the_formula(weights: Tensor | None) -> None:
    logits, targets, valid = make()
    total, count = binary_cross_entropy(logits, targets, valid, positive_weights=weights)
    expected = logits.new_zeros(())
    for row in valid.nonzero().flatten().tolist():
        for c in range(CLASSES):
            p, t = 1 / (1 + (-logits[row, c]).exp()), float(targets[row, c])
            weight = 1.0 if weights is None else float(weights[c])
            expected = expected - (weight * t * p.log() + (1 - t) * (1 - p).log()) / CLASSES
    assert count == valid.sum() and total.dtype is torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    (mine,), (theirs,) = torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_the_mean_is_that_of_torch_over_the_valid_rows() -> None:
    logits, targets, valid = make()
    total, count = binary_cross_entropy(logits, targets, valid)
    expected = F.binary_cross_entropy_with_logits(logits[valid], targets[valid].double())
    torch.testing.assert_close(total / count, expected)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_rows_that_are_not_valid_change_no_bit(garbage: float) -> None:
    results = []
    for dirty in (False, True):
        logits, targets, valid = make()
        if dirty:
            logits = torch.where(valid.unsqueeze(1), logits, garbage).detach().requires_grad_()
            targets = targets.masked_fill(~valid.unsqueeze(1), garbage)
        total, _ = binary_cross_entropy(logits, targets, valid, positive_weights=WEIGHTS)
        total.backward()
        results.append({"loss": total.detach(), "gradient": logits.grad})
    assert_same_bits(*results)


def test_without_a_valid_row_it_is_nothing_with_a_gradient_of_zero() -> None:
    logits, targets, valid = make()
    total, count = binary_cross_entropy(logits, targets, valid & False)
    assert (total.item(), count.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert not gradient.any()


def test_it_is_float32_for_bfloat16_logits() -> None:
    logits, targets, valid = make()
    rough = logits.detach().bfloat16()
    total, _ = binary_cross_entropy(rough, targets, valid)
    assert total.dtype is torch.float32
    assert torch.equal(total, binary_cross_entropy(rough.float(), targets, valid)[0])
