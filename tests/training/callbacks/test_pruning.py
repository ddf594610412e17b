"""Pruning by the median of other runs, on studies that are a list of curves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from mmtrain.training.callbacks.pruning import Pruned, Pruning
from mmtrain.training.sweep.study import NAME, storage_of

MONITOR = "val/accuracy"
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs that are done, at 250, 500 and 750 thousandths, and a running one."""
    study = optuna.create_study(study_name=NAME, storage=storage_of(tmp_path), direction="maximize")
    for end in (0.4, 0.6, 0.8):
        trial = study.ask()
        for part in (250, 500, 750):
            trial.report(end * part / 1000, part)
        study.tell(trial, end)
    study.ask()
    return tmp_path


def validate(callback: Pruning, step: int, value: float, *, fn: TrainerFn = TrainerFn.FITTING) -> None:
    """A validation after so many of 200 steps."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        global_step=step,
        estimated_stepping_batches=200,
        callback_metrics={MONITOR: torch.tensor(value)},
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    callback.on_validation_end(cast(Any, trainer), cast(Any, None))


def reported(folder: Path) -> dict[int, float]:
    return optuna.load_study(study_name=NAME, storage=storage_of(folder)).trials[3].intermediate_values


def test_a_run_below_the_median_is_given_up(folder: Path) -> None:
    callback = Pruning(folder=folder, number=3, pruner=PRUNER, monitor=MONITOR)
    validate(callback, 50, 0.2)  # the median is 0.15
    with pytest.raises(Pruned, match=r"pruned at step 100: val/accuracy = 0\.2500 is worse than in other runs") as left:
        validate(callback, 100, 0.25)  # and 0.3
    assert left.value.status == 0 and left.value.outcome == "pruned"
    assert reported(folder) == pytest.approx({250: 0.2, 500: 0.25})


def test_a_run_above_it_goes_on_and_the_end_of_a_run_is_its_end(folder: Path) -> None:
    callback = Pruning(folder=folder, number=3, pruner=PRUNER, monitor=MONITOR)
    for step, value in ((50, 0.16), (100, 0.31), (150, 0.46), (200, 0.0)):
        validate(callback, step, value)
    assert list(reported(folder)) == [250, 500, 750]


def test_nothing_is_given_up_at_the_beginning(folder: Path) -> None:
    validate(Pruning(folder=folder, number=3, pruner=PRUNER, monitor=MONITOR), 30, 0.0)


def test_a_run_that_goes_on_says_some_of_it_again(folder: Path) -> None:
    for _ in range(2):
        validate(Pruning(folder=folder, number=3, pruner=PRUNER, monitor=MONITOR), 50, 0.2)
    assert reported(folder) == pytest.approx({250: 0.2})


def test_only_training_is_told_of(folder: Path) -> None:
    validate(Pruning(folder=folder, number=3, pruner=PRUNER, monitor=MONITOR), 50, 0.0, fn=TrainerFn.TESTING)
    validate(Pruning(folder=folder, number=3, pruner=PRUNER, monitor=None), 50, 0.0)
    assert reported(folder) == {}


def test_a_trial_that_has_ended_is_left_alone(folder: Path) -> None:
    validate(Pruning(folder=folder, number=0, pruner=PRUNER, monitor=MONITOR), 50, 0.0)
