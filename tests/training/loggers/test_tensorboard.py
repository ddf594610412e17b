"""What TensorBoard shows of a run that was killed and went on: each step once."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmtrain.build import compose
from mmtrain.training.loggers.tensorboard import make_tensorboard
from mmtrain.training.trainer import build_loggers


def log(run_dir: Path, steps: range, value: float, resume_step: int | None) -> None:
    logger = make_tensorboard(run_dir=str(run_dir), name="tensorboard", resume_step=resume_step)
    for step in steps:
        logger.log_metrics({"train/loss": value}, step=step)
    logger.finalize("success")


def test_a_run_that_goes_on_shows_each_step_once(tmp_path: Path) -> None:
    log(tmp_path, range(1, 11), 1.0, None)
    log(tmp_path, range(8, 13), 2.0, 7)
    result = EventAccumulator(str(tmp_path / "tensorboard"))
    result.Reload()
    shown = [(event.step, event.value) for event in result.Scalars("train/loss")]
    assert shown == [(step, 1.0 if step < 8 else 2.0) for step in range(1, 13)]


def test_a_test_forgets_nothing(tmp_path: Path) -> None:
    given = [f"run_dir={tmp_path}", "logger=[csv,tensorboard]"]
    _, going_on = build_loggers(compose(given), resume_step=7)
    assert going_on._kwargs["purge_step"] == 8
    _, testing = build_loggers(compose([*given, "mode=test"]), resume_step=7)
    assert testing._kwargs["purge_step"] is None
