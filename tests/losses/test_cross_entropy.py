"""Cross entropy over labelled rows against torch's and against the formula."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.cross_entropy import cross_entropy
from tests.batches import assert_same_bits

ROWS, CLASSES = 9, 4


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
