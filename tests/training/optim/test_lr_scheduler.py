"""A run that goes on with another learning rate has it; one that goes on with the same has the same to the last bit."""

import csv
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from mmtrain.training.optim.lr_scheduler import Following
from mmtrain.training.optim.schedules import cosine
from tests.runs import run_tiny
from tests.tiny import make_tables


def made(lr: float) -> tuple[torch.optim.SGD, Following]:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr * factor} for factor in (1.0, 0.3)]
    optimizer = torch.optim.SGD(groups)
    return optimizer, Following(optimizer, lambda step: cosine(step, 20, warmup=0.1, final=0.0))


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
    before = LambdaLR(optimizer, lambda step: cosine(step, 20, warmup=0.1, final=0.0))
    for _ in range(4):
        optimizer.step()
        before.step()
    again, gone_on = made(0.1)
    gone_on.load_state_dict(before.state_dict())
    assert rates(again) == rates(optimizer)


def test_a_run_goes_on_with_another_rate_and_decay(tmp_path: Path) -> None:
    tables, folder = make_tables(tmp_path / "tables"), tmp_path / "run"
    plain = ["task=[classification]", "schedule=constant", "schedule.warmup=0", "optimizer.lr=0.001"]
    assert run_tiny(tables, folder, *plain, "trainer.max_epochs=1") == 0
    changed = ["optimizer.lr=0.0001", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]"]
    allow = "resume_allow=[optimizer]"
    assert run_tiny(tables, folder, *plain[:-1], *changed, allow, "trainer.max_epochs=2", "resume=auto") == 0
    with (folder / "metrics.csv").open(newline="") as file:
        found = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert found == [0.001] * 6 + [0.0001] * 6
    (kept,) = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert sorted(group["weight_decay"] for group in kept["param_groups"]) == [0.0, 0.3]
    assert {tuple(group["betas"]) for group in kept["param_groups"]} == {(0.8, 0.9)}
    assert {group["lr"] for group in kept["param_groups"]} == {0.0001}
