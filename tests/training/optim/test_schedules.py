"""Schedules against torch's own and against their corners."""

import csv
import doctest
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from mmtrain.training.optim import schedules
from mmtrain.training.optim.schedules import ResumableLambdaLR, constant, cosine
from tests.runs import run_tiny
from tests.tiny import make_tables


def test_the_examples_hold() -> None:
    assert doctest.testmod(schedules).failed == 0


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_without_warmup_is_that_of_torch(total: int, final: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = CosineAnnealingLR(optimizer, T_max=total, eta_min=final)
    for step in range(total + 1):
        assert cosine(step, total, warmup_ratio=0.0, min_lr_ratio=final) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-9
        )
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("total", [1, 2, 10, 101])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_it_rises_in_a_straight_line_and_then_never_again(total: int, warmup: float) -> None:
    rise = round(warmup * total)
    factors = [cosine(step, total, warmup_ratio=warmup, min_lr_ratio=0.05) for step in range(total + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[rise] == (1.0 if rise < total or total == rise else 0.05)
    steps = [after - before for before, after in pairwise(factors)]
    assert steps[:rise] == pytest.approx([1 / (rise + 1)] * rise)
    assert all(step < 0 for step in steps[rise:])
    if rise < total:
        assert factors[-1] == pytest.approx(0.05)


def test_beyond_the_end_it_stays() -> None:
    """A run may take a few steps more than was foreseen."""
    assert cosine(15, 10, warmup_ratio=0.2, min_lr_ratio=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_constant_rises_like_cosine_and_is_level_after(warmup: float) -> None:
    rise = round(warmup * 10)
    for step in range(14):
        expected = cosine(step, 10, warmup_ratio=warmup, min_lr_ratio=0.0) if step < rise else 1.0
        assert constant(step, 10, warmup_ratio=warmup) == expected


def made(lr: float) -> tuple[torch.optim.SGD, ResumableLambdaLR]:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr * factor} for factor in (1.0, 0.3)]
    optimizer = torch.optim.SGD(groups)
    return optimizer, ResumableLambdaLR(optimizer, lambda step: cosine(step, 20, warmup_ratio=0.1, min_lr_ratio=0.0))


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("later", [0.1, 0.02])
def test_rates_are_those_of_the_configuration(later: float) -> None:
    optimizer, schedule = made(0.1)
    calm, expected = made(later)
    for _ in range(7):
        for one, its in ((optimizer, schedule), (calm, expected)):
            one.step()
            its.step()
    again, gone_on = made(later)
    again.load_state_dict(optimizer.state_dict())
    gone_on.load_state_dict(schedule.state_dict())
    for _ in range(5):
        assert rates(again) == rates(calm) and gone_on.get_last_lr() == expected.get_last_lr()
        for one, its in ((again, gone_on), (calm, expected)):
            one.step()
            its.step()


def test_a_checkpoint_of_torchs_own_schedule_can_be_gone_on_with() -> None:
    optimizer, _ = made(0.1)
    before = LambdaLR(optimizer, lambda step: cosine(step, 20, warmup_ratio=0.1, min_lr_ratio=0.0))
    for _ in range(4):
        optimizer.step()
        before.step()
    again, gone_on = made(0.1)
    gone_on.load_state_dict(before.state_dict())
    assert rates(again) == rates(optimizer)


def test_a_run_goes_on_with_another_rate_and_decay(tmp_path: Path) -> None:
    tables, folder = make_tables(tmp_path / "tables"), tmp_path / "run"
    plain = ["task=[classification]", "schedule=constant", "schedule.warmup_ratio=0", "optimizer.lr=0.001"]
    assert run_tiny(tables, folder, *plain, "trainer.max_epochs=1") == 0
    changed = ["optimizer.lr=0.0001", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]"]
    allow = "resume_allow=[optimizer]"
    assert run_tiny(tables, folder, *plain[:-1], *changed, allow, "trainer.max_epochs=2", "resume=auto") == 0
    with (folder / "metrics.csv").open(newline="") as file:
        results = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert results == [0.001] * 6 + [0.0001] * 6
    (kept,) = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert sorted(group["weight_decay"] for group in kept["param_groups"]) == [0.0, 0.3]
    assert {tuple(group["betas"]) for group in kept["param_groups"]} == {(0.8, 0.9)}
    assert {group["lr"] for group in kept["param_groups"]} == {0.0001}
