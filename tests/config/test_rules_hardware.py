"""What a configuration asks of this machine is compared with what there is, by the real rules on pretended machines."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmtrain.config import rules_hardware as machine
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of

CLUSTER = "hydra.launcher._target_=hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and two GPUs, and no scheduler that divides them."""
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    monkeypatch.setattr(machine, "num_gpus", lambda: 2)
    monkeypatch.setattr(machine, "has_no_gpu", lambda: False)
    for name in ("LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def faults(*overrides: str) -> list[str]:
    return faults_of(config_dir(), None, list(overrides), multirun=False)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.num_workers=32"],
        ["data.num_workers=16", "trainer=ddp"],
        ["data.num_workers=1", "trainer.devices=100"],  # as the files say
        ["data.num_workers=100", "mode=plan"],
        ["data.num_workers=100", CLUSTER],
        ["trainer=gpu", "trainer.devices=2"],
        ["trainer=gpu", "trainer.devices=[1]"],
        ["trainer=gpu", "trainer.devices=auto"],
        ["trainer=gpu", "trainer.devices=-1"],
        ["trainer=gpu", "trainer.devices=8", "mode=plan"],
        ["trainer=gpu", "trainer.devices=8", CLUSTER],
        ["trainer=ddp", "trainer.devices=8"],  # auto: without CUDA it runs on the cores
        ["trainer.accelerator=tpu", "mode=plan"],
        ["trainer.precision=16-mixed", "mode=plan"],
        ["trainer.precision=bf16-mixed"],
        ["run_dir=/dev/null/mine", CLUSTER],
    ],
    ids=" ".join,
)
def test_what_this_machine_can_do_or_another_may_is_no_fault(overrides: list[str]) -> None:
    assert faults(*overrides) == []


def test_processes_that_load_are_counted_over_all_devices() -> None:
    assert faults("data.num_workers=33") == [
        "data.num_workers=33: too many for 8 cores (override data.num_workers=33)\n"
        "    fix: set data.num_workers to 8, or to 0 to load in the training process"
    ]
    assert faults("data.num_workers=12", "trainer.devices=4") == [
        "data.num_workers=12: too many on each of 4 devices for 8 cores"
        " (override data.num_workers=12, override trainer.devices=4)\n"
        "    fix: set data.num_workers to 2, or to 0 to load in the training process"
    ]


def test_a_rank_that_others_started_counts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert faults("data.num_workers=12", "trainer=gpu", "trainer.devices=4") == []


@pytest.mark.parametrize(
    ("devices", "shown", "fix"),
    [
        ("8", "8", "set trainer.devices to 2, or to auto for all"),
        ("[0,2]", "[0, 2]", "number them from 0 to 1"),
    ],
)
def test_gpus_are_counted(devices: str, shown: str, fix: str) -> None:
    assert faults("trainer=gpu", f"trainer.devices={devices}") == [
        f"trainer.devices={shown}: this machine has only 2 GPUs (override trainer.devices={devices})\n    fix: {fix}"
    ]


@pytest.mark.parametrize(
    ("present", "visible", "count"),
    [(0, None, None), (4, None, 4), (4, "1,3", 2), (4, "", None), (4, "0,-1,2", 1), (2, "0,1,2,3", 2), (0, "0", None)],
)
def test_gpus_are_those_of_dev_that_cuda_may_see(
    present: int, visible: str | None, count: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    for number in range(present):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.num_gpus() == count


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["trainer=gpu"], "set trainer=cpu, or run on a machine with a GPU"),
        (["trainer=gpu", "trainer.devices=auto"], "set trainer=cpu, or run on a machine with a GPU"),
        (["trainer=gpu", "trainer.devices=8"], "set trainer=cpu trainer.devices=1, or run on a machine with a GPU"),
    ],
)
def test_without_a_gpu_none_is_waited_for(overrides: list[str], fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_gpus", lambda: None)
    monkeypatch.setattr(machine, "has_no_gpu", lambda: True)
    expected = f"trainer.accelerator=gpu: there is no GPU on this machine (override trainer=gpu)\n    fix: {fix}"
    assert faults(*overrides) == [expected]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert faults(*overrides) == [expected]
    assert faults(*overrides, "mode=plan") == faults(*overrides, CLUSTER) == faults("trainer=ddp") == []


@pytest.mark.parametrize(
    ("system", "files", "missing"),
    [
        ("linux", ["null", "tty0"], True),
        ("linux", ["nvidia0"], False),
        ("linux", ["nvidiactl"], False),  # of a part of a GPU (MIG), say
        ("linux", ["dxg"], False),
        ("linux", ["nvhost-gpu"], False),
        ("linux", ["kfd"], False),
        ("darwin", [], False),
        ("win32", [], False),
    ],
)
def test_only_where_nothing_looks_like_a_gpu_there_is_none(
    system: str, files: list[str], missing: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path)
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform=system))
    assert machine.has_no_gpu() is missing


def test_a_precision_that_the_device_lacks_is_not_another_in_silence() -> None:
    assert faults("trainer.precision=16-mixed") == [
        "trainer.precision=16-mixed: needs a GPU, but trainer.accelerator=cpu"
        " (override trainer.precision=16-mixed)\n"
        "    fix: set trainer.precision to bf16-mixed or 32, or choose trainer=gpu"
    ]


def test_what_an_accelerator_or_a_precision_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform="linux"))
    assert faults("trainer.accelerator=mps") == [
        "trainer.accelerator=mps: needs a Mac (override trainer.accelerator=mps)\n"
        "    fix: set trainer.accelerator to cpu, gpu or auto"
    ]
    monkeypatch.setattr(machine, "is_installed", lambda package: False)
    for override, package in (("accelerator=tpu", "torch_xla"), ("precision=transformer-engine", "transformer_engine")):
        (fault,) = faults("trainer=gpu", f"trainer.{override}")
        assert f" needs the package {package}, which is not installed (override trainer.{override})\n" in fault
    monkeypatch.setattr(machine, "is_installed", lambda package: True)
    assert faults("trainer=gpu", "trainer.precision=transformer-engine") == []


def test_one_command_does_not_reach_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = ["trainer=ddp", "trainer.num_nodes=2", "run_dir=out"]
    assert faults(*requested) == [
        "trainer.num_nodes=2: python train.py starts only the processes of one machine"
        " (override trainer.num_nodes=2)\n"
        "    fix: start it with torchrun or srun on each machine (docs/scale.md), or set trainer.num_nodes=1"
    ]
    assert faults(*requested, "mode=plan") == faults(*requested, CLUSTER) == []
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    assert "trainer.num_nodes=3: " in faults("trainer=slurm", "trainer.accelerator=cpu")[0], "a shell of salloc"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert faults(*requested) == []


def test_as_many_processes_are_started_as_there_are_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    (fault,) = faults("trainer=ddp", "trainer.devices=2", "run_dir=out")
    assert fault.startswith(
        "trainer.devices=2, trainer.num_nodes=1: 2 processes in all, but WORLD_SIZE=4 (environment) were started"
    )
    assert faults("trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2", "run_dir=out") == []
    assert faults("trainer=ddp", "trainer.devices=auto", "run_dir=out") == []
    assert len(faults("run_dir=out")) == 1, "one device, four times the same run"


def test_batch_norms_are_not_synchronized_between_cpus() -> None:
    requested = ["trainer=ddp", "trainer.sync_batchnorm=true"]
    assert faults(*requested, "trainer.accelerator=cpu") == [
        "trainer.sync_batchnorm=true: torch synchronizes batch norms only between GPUs, but this run uses CPUs"
        " (override trainer.sync_batchnorm=true, override trainer.accelerator=cpu)\n"
        "    fix: set trainer.sync_batchnorm=false"
    ]
    assert faults(*requested) == faults("trainer.sync_batchnorm=true") == []


def test_a_run_folder_that_cannot_be_written_is_named_with_the_reason() -> None:
    assert faults("run_dir=/dev/null/mine") == [
        "run_dir=/dev/null/mine: cannot write in /dev/null: Not a directory"
        " (override run_dir=/dev/null/mine)\n"
        "    fix: set run_dir to a folder with write permission, such as outputs/mine"
    ]


def test_looking_at_a_run_folder_leaves_nothing(tmp_path: Path) -> None:
    assert faults(f"run_dir={tmp_path}/a/b") == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(free: int, total: int = 10**12) -> Any:
        return lambda folder: SimpleNamespace(total=total, free=free)

    monkeypatch.setattr(machine.shutil, "disk_usage", disk(12_400_000))
    assert faults(f"run_dir={tmp_path}/mine") == [
        f"run_dir={tmp_path}/mine: its disk has 12 MB free, too little for checkpoints"
        f" (override run_dir={tmp_path}/mine)\n"
        "    fix: free at least 100 MB, or set run_dir to a folder on another disk"
    ]
    assert faults("mode=predict", f"run_dir={tmp_path}/mine") == [], "predictions are small"
    monkeypatch.setattr(machine.shutil, "disk_usage", disk(0, total=0))
    assert faults(f"run_dir={tmp_path}/mine") == [], "some file systems do not say what they have"
