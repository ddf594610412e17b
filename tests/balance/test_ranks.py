"""Complete runs of two processes with every rule: interrupted and resumed, uninterrupted, and a single process."""

from pathlib import Path

import pytest
import torch

from mmtrain.config.compose import config_dir
from tests.balance.test_every_rule import rule
from tests.ranks import on_ranks
from tests.runs import PLAIN, RANKS, as_torchrun_starts, assert_same_run, run_tiny, stop_and_resume, weights_of
from tests.tiny import make_tables

BALANCES = sorted(path.stem for path in (config_dir() / "balance").glob("*.yaml"))
KEEPING = [name for name in BALANCES if rule(name).extra_state() or list(rule(name).parameters())]
TASKS = "task=[contrastive,classification]"


def runs_of_rank(rank: int, tables: Path, folder: Path) -> None:
    """Run every rule without interruption, and once interrupted and resumed if it has state."""
    as_torchrun_starts(rank)
    for name in BALANCES:
        given = [TASKS, *PLAIN, *RANKS, f"balance={name}"]
        assert run_tiny(tables, folder / name / "calm", *given) == 0, name
        if name in KEEPING:
            stop_and_resume(3, tables, folder / name / "resumed", *given)


@pytest.mark.slow(seconds=200)
def test_two_processes_that_stop_and_go_on_take_the_steps_of_one(tmp_path: Path) -> None:
    """All rules share one pair of processes, because starting processes takes longer than the runs."""
    tables = make_tables(tmp_path / "data")
    (tables / "test.jsonl").unlink()
    on_ranks(2, runs_of_rank, tables, tmp_path, seconds=900)
    for name in BALANCES:
        if name in KEEPING:
            assert_same_run(tmp_path / name / "calm", tmp_path / name / "resumed")
        assert run_tiny(tables, tmp_path / name / "one", TASKS, *PLAIN, f"balance={name}") == 0
        one, two = weights_of(tmp_path / name / "one"), weights_of(tmp_path / name / "calm")
        for part, weight in one.items():
            torch.testing.assert_close(
                two[part], weight, rtol=1e-4, atol=1e-5, msg=lambda text, at=(name, part): f"{at}: {text}"
            )
