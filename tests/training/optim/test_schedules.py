"""Schedules against torch's own and against their corners."""

import doctest
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from mmtrain.training.optim import schedules
from mmtrain.training.optim.schedules import constant, cosine


def test_the_examples_hold() -> None:
    assert doctest.testmod(schedules).failed == 0


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_without_warmup_is_that_of_torch(total: int, final: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = CosineAnnealingLR(optimizer, T_max=total, eta_min=final)
    for step in range(total + 1):
        assert cosine(step, total, warmup=0.0, final=final) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("total", [1, 2, 10, 101])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_it_rises_in_a_straight_line_and_then_never_again(total: int, warmup: float) -> None:
    rise = round(warmup * total)
    factors = [cosine(step, total, warmup=warmup, final=0.05) for step in range(total + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[rise] == (1.0 if rise < total or total == rise else 0.05)
    steps = [after - before for before, after in pairwise(factors)]
    assert steps[:rise] == pytest.approx([1 / (rise + 1)] * rise)
    assert all(step < 0 for step in steps[rise:])
    if rise < total:
        assert factors[-1] == pytest.approx(0.05)


def test_beyond_the_end_it_stays() -> None:
    """A run may take a few steps more than was foreseen."""
    assert cosine(15, 10, warmup=0.2, final=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_constant_rises_like_cosine_and_is_level_after(warmup: float) -> None:
    rise = round(warmup * 10)
    for step in range(14):
        expected = cosine(step, 10, warmup=warmup, final=0.0) if step < rise else 1.0
        assert constant(step, 10, warmup=warmup) == expected
