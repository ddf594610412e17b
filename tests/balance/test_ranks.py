"""Whole runs of two processes under every balance: stopped and resumed, against never stopped, against one process."""

import os
from pathlib import Path

import pytest
import torch

from mmtrain import run as run_module
from mmtrain.command import config_dir
from tests.balance.test_every_rule import rule
from tests.ranks import on_ranks
from tests.runs import assert_same_run, run_tiny, stop_and_resume, weights_of
from tests.tiny import make_tables

BALANCES = sorted(path.stem for path in (config_dir() / "balance").glob("*.yaml"))
KEEPING = [name for name in BALANCES if rule(name).state() or list(rule(name).parameters())]
# without dropout, which differs by process; eps larger than what rounding makes of a gradient that is zero
PLAIN = [
    "task=[contrastive,classification]",
    "encoder.image.drop_path=0",
    "encoder.image.dropout=0",
    "encoder.text.dropout=0",
    "fusion.dropout=0",
    "task.classification.dropout=0",
    "optimizer.lr=1e-3",
    "optimizer.eps=1e-3",
    "trainer.max_epochs=1",
]
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def runs_of_rank(rank: int, tables: Path, folder: Path) -> None:
    """Of every balance a calm run, and one that stops and goes on if it keeps something.

    Lightning finds the group as if torchrun had started this rank.
    """
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    os.environ |= {name: str(value) for name, value in own.items()} | {"TORCHELASTIC_RUN_ID": "test"}
    run_module.write_report = lambda folder, **parts: folder / "report.html"  # half of the time of so short a run
    for name in BALANCES:
        given = [*PLAIN, *RANKS, f"balance={name}"]
        assert run_tiny(tables, folder / name / "calm", *given) == 0, name
        if name in KEEPING:
            stop_and_resume(3, tables, folder / name / "resumed", *given)


@pytest.mark.slow
def test_two_processes_that_stop_and_go_on_take_the_steps_of_one(tmp_path: Path) -> None:
    """One pair of processes for all of them: to start one takes longer than its runs."""
    tables = make_tables(tmp_path / "data")
    (tables / "test.jsonl").unlink()
    on_ranks(2, runs_of_rank, tables, tmp_path, seconds=900)
    for name in BALANCES:
        if name in KEEPING:
            assert_same_run(tmp_path / name / "calm", tmp_path / name / "resumed")
        assert run_tiny(tables, tmp_path / name / "one", *PLAIN, f"balance={name}") == 0
        one, two = weights_of(tmp_path / name / "one"), weights_of(tmp_path / name / "calm")
        for part, weight in one.items():
            torch.testing.assert_close(
                two[part], weight, rtol=1e-4, atol=1e-5, msg=lambda text, at=(name, part): f"{at}: {text}"
            )
