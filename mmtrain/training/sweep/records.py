"""One run of a sweep: who has it, whether it is done, and what it was asked for.

A sweep that was killed is asked for again with resume=auto. Its runs that are done are passed over, those that are not
go on from their checkpoints. Several machines may work on one sweep whose folder they share: a run belongs to whoever
has locked its folder, and the lock goes with the process that holds it, however it ends.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mmtrain.io.run_files import write_json
from mmtrain.training.run_folder import RunFolderInUse, run_lock

JOB = "job.json"
DONE = ("done", "pruned")
NOT_OF_THE_RUN = ("resume", "run_dir", "resume_allow")  # what may be said otherwise when a sweep goes on


@dataclass(frozen=True)
class Asked:
    """What a run of a sweep was asked for, as job.json in its folder has it.

    Attributes:
        overrides: of the command line.
        status: the exit status; None while it runs, and when it was killed.
    """

    overrides: list[str]
    status: int | None

    @staticmethod
    def read(folder: Path) -> "Asked | None":
        """None where there is none, or what a crash has left of it."""
        try:
            found = json.loads((folder / JOB).read_text(encoding="utf-8"))
            return Asked([str(o) for o in found["overrides"]], found["status"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        write_json(folder / JOB, asdict(self))

    @property
    def of_the_run(self) -> list[str]:
        """The overrides that make the run what it is, in one order."""
        return sorted(o for o in self.overrides if o.split("=")[0].lstrip("+~") not in NOT_OF_THE_RUN)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the folder of a run; whether it was free."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(folder))
            free = True
        except RunFolderInUse:
            free = False
        yield free


def status_of(folder: Path) -> str | None:
    """What summary.json says of the run; None where there is none."""
    try:
        return str(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def passed_over(folder: Path, overrides: Sequence[str], *, goes_on: bool) -> str | None:
    """Why a run is not to be run (again), or None.

    Args:
        folder: of the run, held.
        overrides: of the command line.
        goes_on: whether the sweep is one that goes on (resume=auto).

    Raises:
        ValueError: when another run is there.
    """
    before = Asked.read(folder)
    if before is None:
        return None
    now = Asked(list(overrides), None)
    if before.of_the_run == now.of_the_run:
        to_the_end = before.status == 0 and status_of(folder) in DONE  # not killed while its report was written
        return "done before" if goes_on and to_the_end else None
    if status_of(folder) is None and not (folder / "checkpoints").exists():
        return None  # it came to nothing
    other = [o for o in before.of_the_run if o not in now.of_the_run] or before.of_the_run
    raise ValueError(
        f"{folder} is the run of {' '.join(other)}, not of {' '.join(overrides)}\n"
        "    go on with a sweep by the command that began it, or set run_dir to another folder"
    )


def folders_of(sweep_dir: Path) -> list[Path]:
    """The runs of a sweep, in the order of their numbers."""
    found = [path.parent for path in sweep_dir.rglob(JOB)]
    return sorted(found, key=lambda f: (not f.name.isdigit(), int(f.name) if f.name.isdigit() else 0, str(f)))
