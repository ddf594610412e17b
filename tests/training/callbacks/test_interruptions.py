"""Where a run leaves after SIGTERM. test_run.py also checks that the complete run is the same as without it."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch.nn import functional as F

from mmtrain.build import compose
from mmtrain.modes import run as run_module
from mmtrain.modes.run import run
from mmtrain.training.callbacks import interruptions
from mmtrain.training.callbacks.interruptions import PreemptionHandler, StopReason
from mmtrain.training.callbacks.model_checkpoint import ModelCheckpoint
from mmtrain.training.trainer import build_callbacks, build_trainer
from tests.runs import without_report
from tests.tiny import ROWS, TINY_MODEL, make_tables

STEPS_PER_EPOCH = -(-ROWS["train"] // 8)
LAST = 2 * STEPS_PER_EPOCH
OPTIONS = {
    "no validation": [],
    "validation in the midst": ["trainer.val_check_interval=2"],
    "validation across epochs": ["trainer.val_check_interval=4", "trainer.check_val_every_n_epoch=null"],
    "two epochs a validation": ["trainer.check_val_every_n_epoch=2"],
    "short epochs": ["trainer.limit_train_batches=3"],
}


class SendSigterm(Callback):
    """Sends SIGTERM once, at a hook of this name, when so many steps are done."""

    def __init__(self, hook: str, step: int) -> None:
        self.step = step
        setattr(self, hook, self._send)

    def _send(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether there is a validation split."""
    folder = tmp_path_factory.mktemp("stop")
    results = {has_val: make_tables(folder / str(has_val)) for has_val in (True, False)}
    (results[False] / "val.jsonl").unlink()
    return results


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs that nothing disturbed are kept, by the name of their options."""
    return tmp_path_factory.mktemp("calm")


@pytest.fixture
def run_tiny(tables: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs with the options of that name, and with a callback."""

    def run_it(options: str, folder: Path, *overrides: str, callback: Callback | None = None) -> int:
        def with_callback(*args: Any, extra: Any = (), **parts: Any) -> Trainer:
            return build_trainer(*args, extra=[*extra, *([callback] if callback else [])], **parts)

        monkeypatch.setattr(run_module, "build_trainer", with_callback)
        root = tables[options != "no validation"]
        given = ["data=files", f"data.root={root}", "task=[classification]", "fusion=concat", *TINY_MODEL]
        with without_report():
            return run(compose([*given, f"run_dir={folder}", *OPTIONS[options], *overrides]))

    return run_it


def left_by(folder: Path) -> dict[str, Any]:
    """What a run reached, without timings."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    weights = {
        f"{path.stem}: {name}": tensor
        for path in (folder / "checkpoints").glob("*.ckpt")
        for name, tensor in torch.load(path, weights_only=True)["state_dict"].items()
    }
    return {"rows": rows, "weights": weights} | {k: summary[k] for k in ("status", "steps", "epochs", "best", "test")}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    left, right = one.pop("weights"), other.pop("weights")
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert one == other


@pytest.mark.parametrize(
    ("options", "hook", "sent", "stopped"),
    [
        ("no validation", "on_train_batch_start", STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH),
        ("no validation", "on_train_batch_start", LAST - 1, LAST),
        ("validation in the midst", "on_train_batch_start", 1, 2),
        ("validation in the midst", "on_train_batch_start", 2, 3),
        ("validation in the midst", "on_validation_start", 4, 4),
        ("validation in the midst", "on_validation_start", LAST, LAST),
        ("validation across epochs", "on_train_batch_start", 7, 8),
        ("two epochs a validation", "on_train_batch_start", STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH),
        ("short epochs", "on_train_batch_start", 2, 3),
    ],
)
def test_it_leaves_where_going_on_changes_nothing(
    options: str, hook: str, sent: int, stopped: int, run_tiny: Any, calm: Path, tmp_path: Path
) -> None:
    """Also not which weights are the best, and not what is measured of them."""
    disturbed = tmp_path / "run"
    if not (calm / options).exists():
        assert run_tiny(options, calm / options) == 0
    assert run_tiny(options, disturbed, callback=SendSigterm(hook, sent)) == 143
    assert (left_by(disturbed)["status"], left_by(disturbed)["steps"]) == ("stopped", stopped)
    assert torch.load(disturbed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == stopped
    assert run_tiny(options, disturbed, "resume=auto") == 0
    assert_same(left_by(calm / options), left_by(disturbed))


def test_while_it_tests_there_is_nothing_to_save(run_tiny: Any, tmp_path: Path) -> None:
    """Training gives the signal back: the run does not go on to the end as if nothing had come."""
    with pytest.raises(SystemExit) as left:
        run_tiny("short epochs", tmp_path / "run", callback=SendSigterm("on_test_batch_start", 6))
    assert left.value.code == 143
    assert left_by(tmp_path / "run")["status"] == "stopped"
    assert left_by(tmp_path / "run")["test"] == {}


def test_it_says_where_and_what_is_written(run_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run_tiny("short epochs", folder, callback=SendSigterm("on_train_batch_start", 0)) == 143
    assert f"stopped by SIGTERM at step 1; {folder / 'checkpoints' / 'last.ckpt'} is written" in capsys.readouterr().out


def test_all_ranks_leave_when_any_got_the_signal(
    run_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[float] = []

    def total(noted: torch.Tensor) -> torch.Tensor:
        requested.append(float(noted.sum()))
        return noted + (len(requested) == 2) * F.one_hot(
            torch.tensor(StopReason.SIGTERM), len(StopReason)
        )  # of another rank

    monkeypatch.setattr(interruptions, "all_reduce_sum", total)
    assert run_tiny("short epochs", tmp_path / "run") == 143
    assert requested == [0.0, 0.0]
    assert left_by(tmp_path / "run")["steps"] == 2


def test_it_comes_after_the_checkpoints(tables: dict[bool, Path], tmp_path: Path) -> None:
    """Whose files must be written before it leaves; the first of them keeps the best score."""
    cfg = compose(["data=files", f"data.root={tables[True]}", f"run_dir={tmp_path / 'run'}", "callbacks=[ema]"])
    trainer = Trainer(callbacks=build_callbacks(cfg, monitor=None), logger=False, accelerator="cpu")
    assert [type(c) for c in trainer.callbacks[-3:]] == [ModelCheckpoint, ModelCheckpoint, PreemptionHandler]
    assert trainer.checkpoint_callback.filename == "best"


class Watch(Callback):
    """Does something at the start of some steps, and notes which step last.ckpt is of at the start of each."""

    def __init__(self, folder: Path, does: dict[int, Callable[[], None]]) -> None:
        self.last = folder / "checkpoints" / "last.ckpt"
        self.does = does
        self.seen: list[int | None] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        there = self.last.exists()
        self.seen.append(torch.load(self.last, weights_only=True)["global_step"] if there else None)
        self.does.get(trainer.global_step, lambda: None)()


def send(signum: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signum)


def test_checkpoints_are_written_in_the_midst_of_an_epoch(run_tiny: Any, calm: Path, tmp_path: Path) -> None:
    """After every second step, and after the third by a signal, and after the fifth by a file. Nothing changes."""
    folder = tmp_path / "run"
    asks = folder / "checkpoint_now"
    watch = Watch(folder, {2: send(signal.SIGUSR1), 4: asks.touch})
    if not (calm / "no validation").exists():
        assert run_tiny("no validation", calm / "no validation") == 0
    assert run_tiny("no validation", folder, "checkpoint.every_n_steps=2", callback=watch) == 0
    assert watch.seen[:STEPS_PER_EPOCH] == [None, None, 2, 3, 4, 5]
    assert not asks.exists()
    assert_same(left_by(calm / "no validation"), left_by(folder))


def test_checkpoints_are_written_when_the_last_is_old(run_tiny: Any, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "run", {})
    assert run_tiny("short epochs", tmp_path / "run", "checkpoint.every_minutes=0.0", callback=watch) == 0
    assert watch.seen == [None, 1, 2, 3, 4, 5]


def test_ctrl_c_leaves_with_a_checkpoint(run_tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    watch = Watch(tmp_path / "run", {1: send(signal.SIGINT)})
    assert run_tiny("short epochs", tmp_path / "run", callback=watch) == 130
    assert (left_by(tmp_path / "run")["status"], left_by(tmp_path / "run")["steps"]) == ("stopped", 2)
    output = capfd.readouterr()
    assert "stopping after this step with a checkpoint; press again to stop immediately" in output.err
    assert "stopped by Ctrl-C at step 2" in output.out
    assert signal.getsignal(signal.SIGINT) is before
    assert run_tiny("short epochs", tmp_path / "run", "resume=auto") == 0


def test_ctrl_c_twice_leaves_at_once(run_tiny: Any, tmp_path: Path) -> None:
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    assert run_tiny("short epochs", tmp_path / "run", callback=Watch(tmp_path / "run", {1: twice})) == 130
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "stopped"
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_time_limit_ends_with_a_checkpoint(run_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tiny("short epochs", tmp_path / "run", "trainer.max_time=00:00:00:00") == 0
    assert (left_by(tmp_path / "run")["status"], left_by(tmp_path / "run")["steps"]) == ("stopped", 1)
    assert "stopped by trainer.max_time at step 1" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "message"), [(0, "job 7_3 is requeued"), (1, "could not be requeued (no)")])
def test_a_slurm_job_is_put_back_into_the_queue(
    status: int,
    message: str,
    run_tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/requests\necho no >&2\nexit {status}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slurm = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    watch = Watch(tmp_path / "run", {1: send(signal.SIGUSR1)})
    assert run_tiny("short epochs", tmp_path / "run", callback=watch) == 143
    assert (tmp_path / "requests").read_text() == "requeue 7_3\n"
    assert message in capsys.readouterr().out
    assert left_by(tmp_path / "run")["steps"] == 2
