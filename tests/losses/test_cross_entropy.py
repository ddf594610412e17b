"""Cross entropy over labelled rows against torch's and against the formula."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.cross_entropy import cross_entropy
from tests.batches import assert_same_bits

ROWS, CLASSES = 9, 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)


def make(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    valid = torch.rand(ROWS) < 0.6
    valid[0], valid[1] = True, False
    return torch.randn(ROWS, CLASSES, requires_grad=True), torch.randint(0, CLASSES, (ROWS,)), valid


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_that_of_torch_over_the_valid_rows(label_smoothing: float, seed: int) -> None:
    logits, targets, valid = make(seed)
    total, count = cross_entropy(logits, targets, valid, label_smoothing=label_smoothing)
    assert count == valid.sum()
    reference = F.cross_entropy(logits[valid], targets[valid], label_smoothing=label_smoothing)
    torch.testing.assert_close(total / count, reference)
    (mine,) = torch.autograd.grad(total / count, logits)
    (theirs,) = torch.autograd.grad(reference, logits)
    torch.testing.assert_close(mine, theirs)
    assert not mine[~valid].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_smoothing_spreads_its_share_over_all_classes(label_smoothing: float) -> None:
    logits, targets, valid = make(0)
    expected = 0.0
    for row in range(ROWS):
        if not valid[row]:
            continue
        exps = [math.exp(z) for z in logits[row].tolist()]
        for c in range(CLASSES):
            share = label_smoothing / CLASSES + (1 - label_smoothing) * int(c == targets[row])
            expected -= share * math.log(exps[c] / sum(exps))
    total, _ = cross_entropy(logits, targets, valid, label_smoothing=label_smoothing)
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_rows_that_are_not_valid_change_no_bit(garbage: float, label_smoothing: float) -> None:
    results = []
    for dirty in (False, True):
        logits, targets, valid = make(0)
        if dirty:
            logits = torch.where(valid.unsqueeze(1), logits, garbage).detach().requires_grad_()
            targets = targets.masked_fill(~valid, 10**6)
        total, _ = cross_entropy(logits, targets, valid, label_smoothing=label_smoothing)
        total.backward()
        results.append({"loss": total.detach(), "gradient": logits.grad})
    assert_same_bits(*results)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_without_a_valid_row_it_is_nothing_with_a_finite_gradient(label_smoothing: float) -> None:
    logits, targets, valid = make(0)
    total, count = cross_entropy(logits, targets, valid & False, label_smoothing=label_smoothing)
    assert (total.item(), count.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert not gradient.any()


def test_it_is_float32_for_bfloat16_logits() -> None:
    logits, targets, valid = make(0)
    rough = logits.detach().bfloat16()
    total, _ = cross_entropy(rough, targets, valid)
    assert total.dtype is torch.float32
    assert torch.equal(total, cross_entropy(rough.float(), targets, valid)[0])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("soft", [False, True])
def test_weights_multiply_costs_and_rows_are_counted(
    label_smoothing: float, weights: Tensor | None, soft: bool
) -> None:
    logits, classes, valid = make(0)
    shares = torch.rand(ROWS, CLASSES).softmax(dim=1) if soft else torch.eye(CLASSES)[classes]
    smooth = shares * (1 - label_smoothing) + label_smoothing / CLASSES
    expected = logits.new_zeros(())
    for row in valid.nonzero().flatten().tolist():
        probability = logits[row].exp() / logits[row].exp().sum()
        for c in range(CLASSES):
            weight = 1.0 if weights is None else float(weights[c])
            expected = expected - weight * smooth[row, c] * probability[c].log()
    targets = shares if soft else classes
    total, count = cross_entropy(logits, targets, valid, label_smoothing=label_smoothing, weights=weights)
    assert count == valid.sum()
    torch.testing.assert_close(total, expected)
    (mine,), (theirs,) = torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_shares_of_rows_that_are_not_valid_change_no_bit(garbage: float) -> None:
    results = []
    for dirty in (False, True):
        logits, targets, valid = make(0)
        shares = torch.eye(CLASSES)[targets]
        if dirty:
            logits = torch.where(valid.unsqueeze(1), logits, garbage).detach().requires_grad_()
            shares = shares.masked_fill(~valid.unsqueeze(1), garbage)
        total, _ = cross_entropy(logits, shares, valid, label_smoothing=0.2, weights=WEIGHTS)
        total.backward()
        results.append({"loss": total.detach(), "gradient": logits.grad})
    assert_same_bits(*results)


def test_without_weights_and_shares_not_a_bit_is_new() -> None:
    for label_smoothing in (0.0, 0.1):
        logits, targets, valid = make(0)
        plain = F.cross_entropy(
            logits.masked_fill(~valid.unsqueeze(1), 0.0),
            targets.masked_fill(~valid, -100),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        assert torch.equal(cross_entropy(logits, targets, valid, label_smoothing=label_smoothing)[0], plain.sum())
