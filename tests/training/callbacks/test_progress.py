"""A person sees a bar move; a log file gets one line an epoch."""

import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer

from mmtrain.training.callbacks.progress import Progress
from tests.batches import random_batch
from tests.steps import loader, make_lit, make_trainer

LINE = re.compile(
    r"epoch (?P<epoch>\S+)  step (?P<step>\d+)  loss [\d.]+  samples/s [\d.e+]+"
    r"(?P<val>  val_loss [\d.]+)?  (?P<left>\d+) s left"
)


def fit(progress: Progress, folder: Path, *, validate: bool = False, **options: Any) -> Trainer:
    """Three steps an epoch."""
    trainer = make_trainer(folder, callbacks=[progress], enable_progress_bar=True, **options)
    steps = loader([[random_batch(n)] for n in range(3)])
    trainer.fit(make_lit(), train_dataloaders=steps, val_dataloaders=steps if validate else None)
    return trainer


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[re.Match[str]]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    results = [LINE.fullmatch(line) for line in lines]
    assert all(results), lines
    return [match for match in results if match]


@pytest.mark.parametrize("validate", [True, False])
def test_a_log_gets_one_line_an_epoch(validate: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    fit(progress, tmp_path, validate=validate, max_epochs=3)
    assert not progress.is_enabled
    lines = lines_of(capsys)
    assert [line["epoch"] for line in lines] == ["1/3", "2/3", "3/3"]
    assert [line["step"] for line in lines] == ["3", "6", "9"]
    assert [line["val"] is not None for line in lines] == [validate] * 3
    assert lines[-1]["left"] == "0"


def test_where_steps_end_the_run_nobody_says_how_many_epochs_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Progress(), tmp_path, max_steps=5, max_epochs=None)
    lines = lines_of(capsys)
    assert [(line["epoch"], line["step"]) for line in lines] == [("1", "3"), ("2", "5")]
    assert lines[-1]["left"] == "0"


def test_the_time_that_is_left_follows_from_the_steps_of_this_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from those that were done before the run was resumed."""
    progress = Progress()
    trainer = fit(progress, tmp_path, max_epochs=5)
    capsys.readouterr()
    progress._started, progress._first_step = 100.0, 9
    monkeypatch.setattr("mmtrain.training.callbacks.progress.time.monotonic", lambda: 112.0)
    monkeypatch.setattr(Trainer, "global_step", 12)
    progress.on_train_epoch_end(trainer, trainer.lightning_module)
    (line,) = lines_of(capsys)
    assert line["left"] == "12"  # 3 steps took 12 s and 3 of 15 are to be done


def test_an_epoch_that_was_done_before_the_run_was_resumed_is_not_reported_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress()
    trainer = fit(progress, tmp_path, max_epochs=2)
    capsys.readouterr()
    progress.on_train_start(trainer, trainer.lightning_module)
    progress.on_train_epoch_end(trainer, trainer.lightning_module)
    assert capsys.readouterr().out == ""


def test_only_one_rank_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress()
    trainer = fit(progress, tmp_path, max_epochs=1)
    capsys.readouterr()
    monkeypatch.setattr(type(trainer.strategy), "is_global_zero", False)
    progress.on_train_epoch_end(trainer, trainer.lightning_module)
    assert capsys.readouterr().out == ""


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Standard output is a terminal; its output is in the list afterwards.

    Not a fixture: pytest sets standard output anew between setup and test.
    """
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while True:
                shown.append(os.read(ours, 4096))

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patched:
        patched.setenv("TERM", "xterm")
        patched.setenv("COLUMNS", "150")
        patched.setattr(sys, "stdout", stream)
        yield shown
    reader.join()
    os.close(ours)


def test_a_terminal_gets_a_bar_and_no_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as written:
        progress = Progress()
        fit(progress, tmp_path, validate=True, max_epochs=2)
        assert progress.is_enabled
    shown = b"".join(written).decode()
    assert "Epoch 0/1" in shown and "Epoch 1/1" in shown
    assert "loss: " in shown and "samples/s: " in shown and "val_loss: " in shown
    assert "v_num" not in shown
    assert "s left" not in shown
