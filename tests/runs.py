"""Tiny runs in this process, and one that is told to stop: what tests of whole runs share."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import distributed

from mmtrain import run as run_module
from mmtrain.build import build_trainer, compose
from mmtrain.run import run
from tests.tiny import TINY_MODEL


def run_tiny(tables: Path, folder: Path, *overrides: str) -> int:
    """A run on `tests.tiny.make_tables`; its exit status."""
    return run(compose(["data=files", f"data.root={tables}", f"run_dir={folder}", *TINY_MODEL, *overrides]))


def rows_of(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without timings."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_run(one: Path, other: Path) -> None:
    """Every row of metrics.csv and every bit of the last weights."""
    assert rows_of(one) == rows_of(other)
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


class SendSigterm(Callback):
    """A cluster that takes its machine back while step `step` is computed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(step: int, tables: Path, folder: Path, *overrides: str) -> None:
    """A run that is told to stop at a step, and then goes on."""

    def with_sigterm(*args: Any, extra: Any = (), **parts: Any) -> Any:
        return build_trainer(*args, extra=[*extra, SendSigterm(step)], **parts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "build_trainer", with_sigterm)
        assert run_tiny(tables, folder, *overrides) == 143
    if distributed.is_initialized():
        distributed.barrier()  # the first rank writes what is looked at here
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert summary["steps"] == step
    assert run_tiny(tables, folder, *overrides, "resume=auto") == 0
    if distributed.is_initialized():
        distributed.barrier()
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
