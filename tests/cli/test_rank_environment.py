"""What other programs left in the environment: a rank of one process does not count, contradictions are explained."""

import json
import os
from pathlib import Path

import pytest

from mmtrain.cli.rank_environment import drop_rank_of_one_process, faults_of_rank
from tests.commands import run_command
from tests.tiny import TINY_MODEL, make_tables

GOOD = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07", "MASTER_PORT": "29500"}
FIX = "\n    fix: start the processes with torchrun or srun, or unset RANK LOCAL_RANK WORLD_SIZE for one process"


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ({}, {}, None),
        ({"RANK": "1"}, {}, "RANK=1 (environment): ignored, because WORLD_SIZE is not set"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "1"}, "RANK=1 (environment): ignored, because WORLD_SIZE=1"),
        (
            {"RANK": "0", "LOCAL_RANK": "3", "NODE_RANK": "0"},
            {},
            "RANK=0 LOCAL_RANK=3 NODE_RANK=0 (environment): ignored, because WORLD_SIZE is not set",
        ),
        ({"RANK": "0", "LOCAL_RANK": "0"}, {}, None),
        ({"WORLD_SIZE": "8"}, {}, "WORLD_SIZE=8 (environment): ignored, because RANK is not set"),
        (
            {"SLURM_PROCID": "1"},
            {"SLURM_PROCID": "0"},
            "SLURM_PROCID=1 (environment): ignored, because WORLD_SIZE is not set",
        ),
        (
            {"SLURM_PROCID": "2", "SLURM_NTASKS": "1", "RANK": "1"},
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            "RANK=1 SLURM_PROCID=2 (environment): ignored, because WORLD_SIZE is not set",
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        (GOOD, GOOD, None),
    ],
    ids=str,
)
def test_what_does_not_count_is_dropped_and_reported(
    before: dict[str, str], after: dict[str, str], note: str | None
) -> None:
    environment = before | {"PATH": "x"}
    assert drop_rank_of_one_process(environment) == note
    assert environment == after | {"PATH": "x"}
    assert faults_of_rank(environment) == []


def test_a_single_process_of_torchrun_keeps_what_lightning_reads() -> None:
    started = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    environment = dict(started)
    assert drop_rank_of_one_process(environment) is None
    assert environment == started


def test_a_task_of_slurm_takes_the_place_of_a_rank_that_was_left() -> None:
    task = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}
    environment = task | {"RANK": "1"}
    assert drop_rank_of_one_process(environment) == "RANK=1 (environment): ignored, because WORLD_SIZE is not set"
    assert environment == task
    environment = task | {"WORLD_SIZE": "8"}
    assert drop_rank_of_one_process(environment) is None, "srun's variables replace it"


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({"RANK": "2"}, ["RANK=2 (environment): not below WORLD_SIZE=2"]),
        ({"RANK": "-1"}, ["RANK=-1 (environment): not a number from 0"]),
        ({"WORLD_SIZE": "two"}, ["WORLD_SIZE=two (environment): not a number from 0"]),
        ({"MASTER_ADDR": None}, ["MASTER_ADDR (environment): not set, but WORLD_SIZE=2"]),
        (
            {"MASTER_PORT": None, "LOCAL_RANK": None, "RANK": "7"},
            [
                "LOCAL_RANK (environment): not set, but WORLD_SIZE=2",
                "MASTER_PORT (environment): not set, but WORLD_SIZE=2",
                "RANK=7 (environment): not below WORLD_SIZE=2",
            ],
        ),
        ({"RANK": None}, ["RANK (environment): not set, but WORLD_SIZE=2"]),
    ],
    ids=str,
)
def test_contradictions_are_explained(changed: dict[str, str | None], faults: list[str]) -> None:
    environment = {name: value for name, value in (GOOD | changed).items() if value is not None}
    assert drop_rank_of_one_process(environment) is None
    assert faults_of_rank(environment) == [fault + FIX for fault in faults]


def test_a_rank_that_was_left_does_not_keep_the_run_from_its_folder(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    requested = ["data=files", f"data.root={tables}", *TINY_MODEL, f"run_dir={tmp_path / 'run'}"]
    done = run_command(*requested, "task=[classification]", env=os.environ | {"RANK": "1", "LOCAL_RANK": "1"})
    assert done.returncode == 0, done.stderr
    assert "RANK=1 LOCAL_RANK=1 (environment): ignored, because WORLD_SIZE is not set\n" in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"
    files = ("config.yaml", "metrics.csv", "report.html", "card.md", "checkpoints/best.ckpt")
    assert [name for name in files if not (tmp_path / "run" / name).is_file()] == []
    done = run_command(*requested, env=os.environ | {"RANK": "2", "WORLD_SIZE": "2"})
    assert done.returncode == 2 and "RANK=2 (environment): not below WORLD_SIZE=2" in done.stderr
    assert "Traceback" not in done.stderr
