"""Tiny runs in this process, and one that is stopped: what tests of complete runs share."""

import csv
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import distributed
from torch.distributed import distributed_c10d

from mmtrain.build import compose
from mmtrain.modes import run as run_module
from mmtrain.modes.run import run
from mmtrain.training.trainer import build_trainer
from tests.tiny import TINY_MODEL


@contextmanager
def without_report() -> Iterator[None]:
    """Runs in this process write neither report nor card, which take a third of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "write_report", lambda folder, **parts: folder / "report.html")
        patched.setattr(run_module, "write_card", lambda folder, facts: folder / "card.md")
        yield


def run_tiny(tables: Path, folder: Path, *overrides: str, report: bool = False) -> int:
    """A run on `tests.tiny.make_tables`; its exit status. Without report and card unless requested."""
    cfg = compose(["data=files", f"data.root={tables}", f"run_dir={folder}", *TINY_MODEL, *overrides])
    with nullcontext() if report else without_report():
        return run(cfg)


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


RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
# What keeps the steps of two ranks from being those of one: dropout, which differs by process, and an eps below what
# rounding makes of a gradient that is zero.
PLAIN = [
    "encoder.image.drop_path=0",
    "encoder.image.dropout=0",
    "encoder.text.dropout=0",
    "fusion.dropout=0",
    "task.classification.dropout=0",
    "optimizer.lr=1e-3",
    "optimizer.eps=1e-3",
    "trainer.max_epochs=1",
]


def refuse_pickle(*args: object) -> None:
    raise AssertionError("an object is pickled for another rank")


def as_torchrun_starts(rank: int) -> None:
    """Lightning finds a group of two as if torchrun had started this process, and no pickle is sent."""
    distributed_c10d._object_to_tensor = refuse_pickle
    distributed_c10d._tensor_to_object = refuse_pickle
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    os.environ |= {name: str(value) for name, value in own.items()} | {"TORCHELASTIC_RUN_ID": "test"}


class SendSigterm(Callback):
    """A cluster that takes its machine back while step `step` is computed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(step: int, tables: Path, folder: Path, *overrides: str) -> None:
    """A run that is stopped at a step, and then resumed."""

    def with_sigterm(*args: Any, extra: Any = (), **parts: Any) -> Any:
        return build_trainer(*args, extra=[*extra, SendSigterm(step)], **parts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "build_trainer", with_sigterm)
        assert run_tiny(tables, folder, *overrides) == 143
    if distributed.is_initialized():
        distributed.barrier()  # the first rank writes what is checked here
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert summary["steps"] == step
    assert run_tiny(tables, folder, *overrides, "resume=auto") == 0
    if distributed.is_initialized():
        distributed.barrier()
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
