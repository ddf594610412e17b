"""One process at a time writes into a run folder, and a run that names none gets a folder of its own."""

import copy
import errno
import fcntl
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

from mmtrain.build import compose
from mmtrain.config.compose import config_dir
from mmtrain.errors import ConfigError
from mmtrain.modes.run import run
from mmtrain.training import run_folder
from mmtrain.training.run_folder import (
    NewRunFolder,
    Owner,
    RunFolderInUse,
    is_locked,
    lock_of_run,
    new_folder,
    run_lock,
)
from tests.commands import run_command

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need not wait so long for a lock that is never released."""
    monkeypatch.setattr(run_folder, "_WAIT", 0.3)


def hold(folder: Path, began: Event) -> None:
    """Until it is killed; its child, as a worker of a loader, lives on."""
    with run_lock(folder):
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        began.set()
        time.sleep(60)


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """A process that has the folder; its number."""
    began = FORK.Event()
    process = FORK.Process(target=hold, args=(folder, began))
    process.start()
    assert began.wait(20) and process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with the time of its last change."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------- the lock


def test_a_process_may_lock_again_what_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with run_lock(folder):
        owner = Owner.read(folder)
        assert owner is not None and (owner.host, owner.pid) == (platform.node(), os.getpid())
        with run_lock(folder):
            assert is_locked(folder)
        assert is_locked(folder) and Owner.read(folder) == owner
    assert not is_locked(folder) and Owner.read(folder) is None
    with run_lock(folder):
        assert is_locked(folder)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held_elsewhere(tmp_path) as pid:
        owner = Owner.read(tmp_path)
        assert owner is not None and is_locked(tmp_path)
        with pytest.raises(RunFolderInUse) as caught, run_lock(tmp_path):
            pass
        assert str(caught.value) == (
            f"run_dir={tmp_path}: in use by process {pid} on {platform.node()} since {owner.since}\n"
            "    fix: wait until it ends, stop it, or set run_dir=ANOTHER"
        )
        os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr(run_folder, "_WAIT", 60.0)  # on a busy machine it takes long to be gone
        with run_lock(tmp_path):
            result = Owner.read(tmp_path)
            assert result is not None and result.pid == os.getpid()


def test_an_owner_that_cannot_be_read_is_another_process(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path):
        for content in ("", "[]", '{"host": "a"}', "\0\0"):
            (tmp_path / ".lock.json").write_text(content)
            assert Owner.read(tmp_path) is None
        with pytest.raises(RunFolderInUse, match="in use by another process\n"), run_lock(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_reported(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    done = []
    with run_lock(tmp_path):
        done.append(1)
    output = capsys.readouterr().err
    assert done and output.startswith(f"run_dir={tmp_path}: this file system has no locks ({os.strerror(number)})")
    assert not is_locked(tmp_path)


def test_a_lock_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(ConfigError, match=r"\.lock cannot be written: Read-only file system\n    fix: "),
        run_lock(tmp_path),
    ):
        pass


def cfg_of(folder: Path, *overrides: str) -> DictConfig:
    return compose([f"run_dir={folder}", *overrides])


@pytest.mark.parametrize("mode", ["fit", "test", "predict", "plan"])
def test_what_writes_into_the_folder_locks_it(mode: str, tmp_path: Path) -> None:
    with lock_of_run(cfg_of(tmp_path, f"mode={mode}")):
        assert is_locked(tmp_path)


def test_what_only_reads_does_not(tmp_path: Path) -> None:
    with lock_of_run(cfg_of(tmp_path, "mode=chat")):
        assert not is_locked(tmp_path)
    with lock_of_run(cfg_of(tmp_path, "mode=search", "search.query=x", f"search.sheet={tmp_path / '..' / 'a.png'}")):
        assert not is_locked(tmp_path)
    with lock_of_run(cfg_of(tmp_path, "mode=search", "search.query=x")):
        assert is_locked(tmp_path)


@pytest.mark.parametrize(
    ("environment", "locks"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"RANK": "1"}, True),  # left behind in a shell: there is one process
        ({"RANK": "0", "WORLD_SIZE": "2", "MMTRAIN_LAUNCHER": "7"}, False),
    ],
)
def test_of_several_ranks_one_locks(
    environment: dict[str, str], locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MMTRAIN_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with lock_of_run(cfg_of(tmp_path)):
        assert is_locked(tmp_path) == locks


def test_a_second_command_ends_with_2_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt"):
        (tmp_path / name).write_text("of the first")
    with run_lock(tmp_path):
        before = contents(tmp_path)
        done = run_command(f"run_dir={tmp_path}", "resume=auto", "trainer.find_batch_size=true")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"run_dir={tmp_path}: in use by process {os.getpid()} on {platform.node()} since")
        assert contents(tmp_path) == before
    with held_elsewhere(tmp_path) as pid:
        before = contents(tmp_path)
        assert run(cfg_of(tmp_path, "resume=auto")) == 2
        assert f"in use by process {pid} on" in capsys.readouterr().err
        assert contents(tmp_path) == before


# ------------------------------------------------------------------------------- the default folder


def test_a_new_folder_is_never_one_that_is_there(tmp_path: Path) -> None:
    wanted = tmp_path / "outputs" / "2026-01-31" / "12-00-00"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_folder(wanted), range(16)))
    assert sorted(made) == sorted([wanted, *(wanted.with_name(f"12-00-00-{n}") for n in range(1, 16))])
    assert all(folder.is_dir() for folder in made)


def composed(*overrides: str) -> Any:
    """As Hydra has it when it calls its callbacks."""
    with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=True)


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = composed()
    default = str(one.run_dir)
    other, sweep = copy.deepcopy(one), copy.deepcopy(one)
    NewRunFolder().on_run_start(one)
    NewRunFolder().on_run_start(other)
    NewRunFolder().on_multirun_start(sweep)
    assert [one.hydra.run.dir, other.hydra.run.dir] == [default, f"{default}-1"]
    assert other.search.index == f"{default}-1/index"
    assert sweep.hydra.sweep.dir == f"{default}-2"
    assert list(sweep.hydra.overrides.hydra)[-1] == f"hydra.sweep.dir='{default}-2'"
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 3


@pytest.mark.parametrize(
    "override", ["run_dir=mine", "run_dir='outputs/${now:%H}'", "hydra.run.dir=mine", "hydra.sweep.dir=mine"]
)
def test_a_folder_that_is_named_is_taken_as_it_is(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed(override)
    before = (cfg.hydra.run.dir, cfg.hydra.sweep.dir)
    NewRunFolder().on_run_start(cfg)
    NewRunFolder().on_multirun_start(cfg)
    assert (cfg.hydra.run.dir, cfg.hydra.sweep.dir) == before and list(tmp_path.iterdir()) == []


def test_printing_the_configuration_makes_no_folder(tmp_path: Path) -> None:
    assert run_command("--cfg", "job", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []
