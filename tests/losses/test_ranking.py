"""The pairwise loss against plain loops, values and gradients, and its split into batches."""

import math

import pytest
import torch
from torch import Tensor

from mmtrain.losses.ranking import ordered_pairs, pairwise_logistic
from tests.batches import assert_same_bits

ROWS = 14


def make() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scores, targets with ties, three groups in any order, valid rows."""
    torch.manual_seed(0)
    scores = torch.randn(ROWS, dtype=torch.float64, requires_grad=True)
    return scores, torch.randint(0, 4, (ROWS,)).float(), torch.randint(1, 4, (ROWS,)), torch.rand(ROWS) < 0.8


def test_it_is_the_formula() -> None:
    scores, truths, groups, valid = make()
    total, count = pairwise_logistic(scores, truths, groups, valid)
    expected, pairs = scores.new_zeros(()), 0
    for i in range(ROWS):
        for j in range(ROWS):
            if valid[i] and valid[j] and groups[i] == groups[j] and truths[i] > truths[j]:
                probability = 1 / (1 + (scores[j] - scores[i]).exp())
                expected, pairs = expected - probability.log(), pairs + 1
    assert count == pairs > 5 and total.dtype is torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    (mine,), (theirs,) = torch.autograd.grad(total, scores), torch.autograd.grad(expected, scores)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_groups_may_be_in_one_batch_or_in_several() -> None:
    scores, truths, groups, valid = make()
    full, count = pairwise_logistic(scores, truths, groups, valid)
    parts = [pairwise_logistic(*(x[groups == g] for x in (scores, truths, groups, valid))) for g in (1, 2, 3)]
    torch.testing.assert_close(sum(total for total, _ in parts), full)
    assert sum(int(n) for _, n in parts) == count


def test_a_group_that_is_cut_loses_the_pairs_across_the_cut() -> None:
    scores, truths, groups, valid = make()
    pairs = ordered_pairs(truths, groups, valid)
    across = pairs[:6, 6:].sum() + pairs[6:, :6].sum()
    _, count = pairwise_logistic(scores, truths, groups, valid)
    parts = [
        pairwise_logistic(*(x[cut] for x in (scores, truths, groups, valid)))[1] for cut in (slice(6), slice(6, 20))
    ]
    assert across > 0 and sum(parts) == count - across


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_rows_that_are_not_valid_change_no_bit(garbage: float) -> None:
    results = []
    for dirty in (False, True):
        scores, truths, groups, valid = make()
        if dirty:
            scores = torch.where(valid, scores, garbage).detach().requires_grad_()
            truths = truths.masked_fill(~valid, garbage)
        total, count = pairwise_logistic(scores, truths, groups, valid)
        total.backward()
        results.append({"loss": total.detach(), "count": count, "gradient": scores.grad})
    assert_same_bits(*results)


def test_equal_truths_make_no_pair_and_a_gradient_of_zero() -> None:
    scores, _, groups, valid = make()
    total, count = pairwise_logistic(scores, torch.ones(ROWS), groups, valid)
    assert (total.item(), count.item()) == (0.0, 0)
    (gradient,) = torch.autograd.grad(total, scores)
    assert not gradient.any()


def test_a_hopeless_pair_costs_its_distance() -> None:
    rows = torch.tensor([1.0, 0.0]), torch.tensor([7, 7]), torch.tensor([True, True])
    total, _ = pairwise_logistic(torch.tensor([0.0, 1e4]), *rows)
    assert total.item() == 1e4


def test_it_is_float32_for_bfloat16_scores() -> None:
    scores, *rows = make()
    rough = scores.detach().bfloat16()
    total, _ = pairwise_logistic(rough, *rows)
    assert total.dtype is torch.float32
    assert torch.equal(total, pairwise_logistic(rough.float(), *rows)[0])
