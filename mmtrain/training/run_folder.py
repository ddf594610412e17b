"""The folder of a run: each run has its own, and one process at a time writes into it.

The lock is flock(2) on `.lock`. The kernel releases it when the process ends for any reason. `.lock.json` names the
owner, for the message to a second process. Nothing heavy is imported, because the command locks the folder first.
"""

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mmtrain.config.compose import key_of
from mmtrain.errors import ConfigError, WriteError
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_json

LOCK, OWNER = ".lock", ".lock.json"
_WAIT = 2.0  # seconds: the kernel needs a moment to clean up a killed process
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # from flock on file systems without locks


class RunFolderInUse(ConfigError):
    """Another process uses the run folder."""


@dataclass(frozen=True)
class Owner:
    """The process that uses a run folder.

    Attributes:
        host: name of its machine.
        pid: its process id.
        since: when it locked the folder, in local time.
    """

    host: str
    pid: int
    since: str

    @staticmethod
    def read(folder: Path) -> "Owner | None":
        """None if the file is missing or damaged."""
        try:
            content = json.loads((folder / OWNER).read_text(encoding="utf-8"))
            return Owner(str(content["host"]), int(content["pid"]), str(content["since"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the file. Errors such as a full disk are ignored, because nothing depends on it."""
        with suppress(WriteError):
            write_json(folder / OWNER, asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder. The process that has locked it may lock it again.

    Args:
        folder: run folder; created if it does not exist.

    Raises:
        RunFolderInUse: if another process uses it.
        ConfigError: if the lock file cannot be written.
    """
    lock = FileLock(folder / LOCK, is_singleton=True, fallback_to_soft=False)
    if lock.is_locked:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_WAIT)
    except Timeout as error:
        owner = Owner.read(folder) or "another process"
        raise RunFolderInUse(
            f"run_dir={folder}: in use by {owner}\n    fix: wait until it ends, stop it, or set run_dir=ANOTHER"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ConfigError(
                f"run_dir={folder}: {LOCK} cannot be written: {error.strerror}\n    fix: set run_dir=ANOTHER"
            ) from error
        print_escaped(
            f"run_dir={folder}: this file system has no locks ({error.strerror}),"
            " so a second process in the folder would not be detected; start only one",
            stderr=True,
        )
        yield
        return
    try:
        Owner(platform.node(), os.getpid(), f"{datetime.now():%Y-%m-%d %H:%M:%S}").write(folder)
        yield
    finally:
        with suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process has locked the folder, which may be this one."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True
    except OSError:  # it cannot be locked, so it is not
        return False


@contextmanager
def lock_of_run(cfg: DictConfig) -> Iterator[None]:
    """As `run_lock`, for a command: only the first rank locks, and only if the mode writes into the folder.

    Ranks that `mmtrain.cli.launch` started are covered by the lock of its process.

    Args:
        cfg: resolved.
    """
    is_first = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
    if not is_first or "MMTRAIN_LAUNCHER" in os.environ or not _writes(cfg):
        yield
        return
    with run_lock(Path(cfg.run_dir)):
        yield


def _writes(cfg: DictConfig) -> bool:
    """Whether the mode writes into the run folder."""
    if cfg.mode == "search":
        return Path(cfg.search.sheet).resolve().is_relative_to(Path(cfg.run_dir).resolve())
    return bool(cfg.mode != "chat")


class NewRunFolder(Callback):
    """Creates the folder of a run without a name, for Hydra: two runs that start in the same second get two folders."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before it creates the folder."""
        if _is_default(config):
            config.run_dir = str(new_folder(Path(config.run_dir)))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a sweep."""
        if _is_default(config):
            folder = new_folder(Path(config.hydra.sweep.dir))
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{folder}'")  # each run is composed again, with these


def _is_default(config: DictConfig) -> bool:
    """Whether the folder is the default, which is the current time."""
    plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, ["run_dir", "hydra"]), resolve=False)
    overrides = [*plain["hydra"]["overrides"]["task"], *plain["hydra"]["overrides"]["hydra"]]
    named = {key_of(override) for override in overrides} & {"run_dir", "hydra.run.dir", "hydra.sweep.dir"}
    return not named and "${now:" in str(plain["run_dir"]) and plain["hydra"]["run"]["dir"] == "${run_dir}"


def new_folder(folder: Path) -> Path:
    """Create a new folder: this one, or NAME-1, NAME-2 and so on if it exists."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        made = folder if number == 0 else folder.with_name(f"{folder.name}-{number}")
        try:
            made.mkdir()
        except FileExistsError:
            number += 1
        else:
            return made
