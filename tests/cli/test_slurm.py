"""Ranks that srun starts: their environment, and that two of them are one run."""

import doctest
import json
import os
from pathlib import Path

import pytest

from mmtrain.cli import slurm
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of
from tests.commands import start_command
from tests.tiny import TINY_MODEL, make_tables

ROOT = Path(__file__).resolve().parents[2]
TASK = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}


def test_the_examples_hold() -> None:
    assert doctest.testmod(slurm).failed == 0


def test_a_task_of_several_is_a_rank() -> None:
    environment = dict(TASK)
    slurm.take_rank(environment)
    assert {k: v for k, v in environment.items() if k not in TASK} == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "18456",
    }


@pytest.mark.parametrize("changed", [{"RANK": "0"}, {"SLURM_NTASKS": "1"}])
def test_what_is_no_rank_of_slurms_is_left_alone(changed: dict[str, str]) -> None:
    environment = TASK | changed
    slurm.take_rank(environment)
    assert environment == TASK | changed
    plain = {"PATH": "x"}
    slurm.take_rank(plain)
    assert plain == {"PATH": "x"}


def test_ranks_of_one_run_need_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["trainer=ddp", "trainer.accelerator=cpu"]
    assert faults_of(config_dir(), None, overrides, multirun=False) == []
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert faults_of(config_dir(), None, overrides, multirun=False) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert faults_of(config_dir(), None, overrides, multirun=False) == [
        "run_dir=outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}: a time, which differs between the processes of this run"
        " (configs/train.yaml)\n    fix: set run_dir=DIR"
    ]
    assert faults_of(config_dir(), None, [*overrides, "run_dir=out"], multirun=False) == []


def test_devices_and_machines_are_those_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtrain.build import compose

    assert compose(["trainer=slurm"]).trainer.devices == 1
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "16")
    trainer = compose(["trainer=slurm"]).trainer
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (4, 16, "ddp")


def test_two_tasks_are_one_run(tmp_path: Path) -> None:
    """As srun would start them, on one machine."""
    tables = make_tables(tmp_path / "tables")
    own = ["data=files", f"data.root={tables}", *TINY_MODEL, f"run_dir={tmp_path / 'run'}"]
    requested = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.precision=32", "trainer.deterministic=true"]
    both, files = [], [tmp_path / str(number) for number in range(2)]
    for number in range(2):
        values = TASK | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_NODEID": "0"}
        values |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NODELIST": "127.0.0.1"}
        values |= {"SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": str(os.getpid())}
        environment = os.environ | values | {"OMP_NUM_THREADS": "1"}
        both.append(start_command(*requested, *own, env=environment, stdout=files[number]))
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0]
    said = [file.read_text() for file in files]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"
    assert "report: " in said[0] and "report: " not in said[1]
