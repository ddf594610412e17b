"""The record of a run in a sweep: its process, its status, and its overrides.

A killed sweep is repeated with resume=auto. Its finished runs are skipped, and the others are resumed from their
checkpoints. Several machines may work on one sweep in a shared folder: the process that has locked the folder of a run
owns it, and the lock is released when the process ends for any reason.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mmtrain.config.renamed import current_override, may_be_old, without_hydra
from mmtrain.config.run_config import read_run_config
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import write_json
from mmtrain.training.run_folder import RunFolderInUse, run_lock

JOB = "job.json"
DONE = ("done", "pruned")
NOT_OF_THE_RUN = ("resume", "run_dir", "resume_allow")  # overrides that may differ when a sweep is resumed


@dataclass(frozen=True)
class JobRecord:
    """The request for a run of a sweep, as in job.json in its folder.

    Attributes:
        overrides: of the command line.
        status: exit status; None while it runs, and after a kill.
    """

    overrides: list[str]
    status: int | None

    @staticmethod
    def read(folder: Path) -> "JobRecord | None":
        """None if there is no file, or it is damaged."""
        try:
            content = json.loads((folder / JOB).read_text(encoding="utf-8"))
            return JobRecord(_with_current_keys(folder, [str(o) for o in content["overrides"]]), content["status"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the file atomically."""
        write_json(folder / JOB, asdict(self))

    @property
    def own_overrides(self) -> list[str]:
        """The overrides that identify the run, in a fixed order."""
        return sorted(o for o in self.overrides if o.split("=")[0].lstrip("+~") not in NOT_OF_THE_RUN)


def _with_current_keys(folder: Path, overrides: list[str]) -> list[str]:
    """Overrides that an earlier version may have recorded, with today's names of keys."""
    if not any(map(may_be_old, overrides)):
        return overrides
    try:
        plain = without_hydra(read_run_config(folder))
    except ConfigError:  # it came to nothing, or is explained where the run is needed
        return overrides
    return [current_override(override, plain) for override in overrides]


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Lock the folder of a run, and return whether it was free."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(folder))
            free = True
        except RunFolderInUse:
            free = False
        yield free


def status_of(folder: Path) -> str | None:
    """The status in summary.json; None if there is none."""
    try:
        return str(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def skip_reason(folder: Path, overrides: Sequence[str], *, goes_on: bool) -> str | None:
    """Why a run is skipped, or None.

    Args:
        folder: folder of the run, locked.
        overrides: overrides of the command line.
        goes_on: whether the sweep is resumed (resume=auto).

    Raises:
        ValueError: if the folder has another run.
    """
    before = JobRecord.read(folder)
    if before is None:
        return None
    now = JobRecord(list(overrides), None)
    if before.own_overrides == now.own_overrides:
        to_the_end = before.status == 0 and status_of(folder) in DONE  # not killed while the report was written
        return "done before" if goes_on and to_the_end else None
    if status_of(folder) is None and not (folder / "checkpoints").exists():
        return None  # it has no result
    other = [o for o in before.own_overrides if o not in now.own_overrides] or before.own_overrides
    raise ValueError(
        f"{folder}: contains the run of {' '.join(other)}, not of {' '.join(overrides)}\n"
        "    fix: resume a sweep with its own command, or set run_dir to another folder"
    )


def folders_of(sweep_dir: Path) -> list[Path]:
    """The runs of a sweep, in the order of their numbers."""
    results = [path.parent for path in sweep_dir.rglob(JOB)]
    return sorted(results, key=lambda f: (not f.name.isdigit(), int(f.name) if f.name.isdigit() else 0, str(f)))
