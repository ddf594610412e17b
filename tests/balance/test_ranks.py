"""Whole runs of two processes under every balance: stopped and resumed, against never stopped, against one process."""

import os
from pathlib import Path

import pytest
import torch

from mmtrain.command import config_dir
from tests.ranks import on_ranks
from tests.runs import assert_same_run, run_tiny, stop_and_resume, weights_of
from tests.tiny import make_tables

BALANCES = sorted(path.stem for path in (config_dir() / "balance").glob("*.yaml"))
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


def runs_of_rank(rank: int, tables: Path, folder: Path, overrides: list[str]) -> None:
    """A calm run and one that stops and goes on; Lightning finds the group as if torchrun had started this rank."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    os.environ |= {name: str(value) for name, value in own.items()} | {"TORCHELASTIC_RUN_ID": "test"}
    assert run_tiny(tables, folder / "calm", *overrides) == 0
    stop_and_resume(3, tables, folder / "resumed", *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("name", BALANCES)
def test_two_processes_that_stop_and_go_on_take_the_steps_of_one(name: str, tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    given = [*PLAIN, f"balance={name}"]
    on_ranks(2, runs_of_rank, tables, tmp_path, [*given, *RANKS])
    assert_same_run(tmp_path / "calm", tmp_path / "resumed")
    assert run_tiny(tables, tmp_path / "one", *given) == 0
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "calm")
    for part, weight in one.items():
        torch.testing.assert_close(two[part], weight, rtol=1e-4, atol=1e-5, msg=lambda text, at=part: f"{at}: {text}")
