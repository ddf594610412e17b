"""End a run in each way that clusters and faults do: status, seconds until it ends, remaining processes, resuming.

    python scripts/chaos_ends.py [--cases training,a-rank,...] [--folder DIR]

Each run trains on OpenMoji. At a certain moment a process gets SIGTERM or is killed. Then no process of the run may
remain, every checkpoint must be valid, and the same command must continue to the end of an undisturbed run: SHA-256 of
weights, optimizer, metrics and ledger of sample ids. The exit status is 1 if any of this fails.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from chaos import RANKS, TRAIN, ends, session_of, steps_of
from rich.console import Console
from rich.table import Table

from mmtrain.training.checkpoint.io import corruption_reason

STEPS_PER_EPOCH = 22  # of OpenMoji in batches of 128
SHARED = [
    *("data=openmoji", "data.inputs.image.size=32", "encoder.image.patch_size=8", "encoder.image.depth=2"),
    *("encoder.text.depth=2", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks=[ema,ledger]"),
    "checkpoint.every_n_steps=5",
]
WORKERS = ["data.num_workers=2"]


class Case(NamedTuple):
    """One way to end a run.

    Attributes:
        what: name in the table.
        more: overrides.
        when: whether the moment has come, given the run folder and the folder of the data.
        whom: returns the process to signal, given the leader's id; a negative number is its process group.
        signal: the signal to send.
        status: required exit status of the run.
    """

    what: str
    more: list[str]
    when: Callable[[Path, Path], bool]
    whom: Callable[[int], int]
    signal: signal.Signals
    status: int


def at_step(step: int) -> Callable[[Path, Path], bool]:
    """When this number of steps is in metrics.csv. After the last step of an epoch, the validation has begun."""
    return lambda folder, cache: steps_of(folder) >= step


def while_writing(folder: Path, cache: Path) -> bool:
    """While a checkpoint is written, after the first ones."""
    return steps_of(folder) >= 8 and bool(list((folder / "checkpoints").glob(".*.part")))


def while_drawing(folder: Path, cache: Path) -> bool:
    """While the images of the data are drawn."""
    return any(len(list(images.iterdir())) > 300 for images in cache.glob("**/images"))


def leader(process: int) -> int:
    """The process that was started."""
    return process


def everyone(process: int) -> int:
    """All processes of one machine, as on a cluster."""
    return -process


def a_rank(number: int) -> Callable[[int], int]:
    """The rank of this index."""

    def find(process: int) -> int:
        own = f"RANK={number}".encode()
        ranks = [p for p in session_of(process) if own in Path(f"/proc/{p}/environ").read_bytes().split(b"\0")]
        return next(
            p for p in ranks if b"mmtrain.modes.run" in Path(f"/proc/{p}/cmdline").read_bytes() and not _is_worker(p)
        )

    return find


def a_worker(process: int) -> int:
    """A loading process."""
    return next(p for p in session_of(process) if _is_worker(p))


def _is_worker(process: int) -> bool:
    """A worker is a copy of the training process: its parent has the same command line."""
    parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    mine, its = (Path(f"/proc/{p}/cmdline").read_bytes() for p in (process, parent))
    return mine == its


TERM, KILL = signal.SIGTERM, signal.SIGKILL
CASES = {
    "preparing": Case("SIGTERM while data is drawn", [], while_drawing, leader, TERM, 143),
    "training": Case("SIGTERM in training", [], at_step(12), leader, TERM, 143),
    "validation": Case("SIGTERM in validation", [], at_step(STEPS_PER_EPOCH), leader, TERM, 143),
    "saving": Case("SIGTERM while a checkpoint is written", [], while_writing, leader, TERM, 143),
    "background": Case(
        "the same, written in the background", ["checkpoint.background=true"], while_writing, leader, TERM, 143
    ),
    "everyone": Case("SIGTERM to a run and its workers", WORKERS, at_step(12), everyone, TERM, 143),
    "ranks": Case("SIGTERM to the launcher of two ranks", RANKS, at_step(12), leader, TERM, 143),
    "rank-0": Case("rank 0 of two killed", RANKS, at_step(12), a_rank(0), KILL, 137),
    "rank-1": Case("rank 1 of two killed", RANKS, at_step(12), a_rank(1), KILL, 137),
    "launcher": Case("the launcher of two ranks killed", [*RANKS, *WORKERS], at_step(12), leader, KILL, -9),
    "worker": Case("a worker killed", WORKERS, at_step(12), a_worker, KILL, 1),
    "rank-worker": Case("a worker of one of two ranks killed", [*RANKS, *WORKERS], at_step(12), a_worker, KILL, 1),
}


def start(case: Case, folder: Path, cache: Path) -> "subprocess.Popen[bytes]":
    """Start a run in its own session, or resume it."""
    words = [sys.executable, str(TRAIN), *SHARED, *case.more, f"run_dir={folder}", "resume=auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MMTRAIN_CACHE": str(cache)}
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)


def disturb(case: Case, folder: Path, cache: Path) -> tuple[int, float, list[int]]:
    """Return its status, the seconds from the signal to its end, and its remaining processes."""
    process = start(case, folder, cache)
    while not case.when(folder, cache):
        if process.poll() is not None:
            raise RuntimeError(f"{case.what}: it ended before; {folder.with_suffix('.log')} says why")
        time.sleep(0.001)
    os.kill(case.whom(process.pid), case.signal)
    began = time.monotonic()
    status = process.wait()
    if case.signal == KILL and case.whom is leader:  # the others end automatically
        while session_of(process.pid) and time.monotonic() - began < 20:
            time.sleep(0.01)
    return status, time.monotonic() - began, session_of(process.pid)


def main() -> int:
    """Run all cases and print the table; 1 if something fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--folder", type=Path, default=None)
    requested = parser.parse_args()
    names = requested.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no case {unknown[0]}; choose from {', '.join(CASES)}")
    root = Path(tempfile.mkdtemp(prefix="chaos-ends-")) if requested.folder is None else requested.folder
    root.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(title="how runs end")
    for heading in ("what", "status", "seconds", "processes left", "checkpoints", "resumed at step", "end"):
        table.add_column(heading, overflow="fold")
    calm: dict[bool, dict[str, str]] = {}
    fine = True
    for name in names:
        case, cache = CASES[name], root / "cache"
        of_ranks = RANKS[0] in case.more
        if of_ranks not in calm:
            folder = root / f"calm-{'ranks' if of_ranks else 'one'}"
            if status := start(case, folder, cache).wait():
                raise RuntimeError(f"the calm run ended with {status}; {folder.with_suffix('.log')} says why")
            calm[of_ranks] = ends(folder)
        folder = root / name
        if name == "preparing":
            cache = root / "cache-of-its-own"
        status, seconds, left = disturb(case, folder, cache)
        faults = [
            f"{path.name}: {why}" for path in folder.glob("checkpoints/*.ckpt") if (why := corruption_reason(path))
        ]
        count = len(list(folder.glob("checkpoints/*.ckpt")))
        if (again := start(case, folder, cache).wait()) != 0:
            raise RuntimeError(f"{case.what}: resuming ended with {again}; {folder.with_suffix('.log')} says why")
        log = folder.with_suffix(".log").read_text().splitlines()
        went_on = [line.split("resuming at step ")[1].split()[0] for line in log if "resuming at step" in line]
        differs = [key for key, value in ends(folder).items() if value != calm[of_ranks][key]]
        good = status == case.status and not left and not faults and not differs
        fine &= good
        table.add_row(
            case.what,
            str(status) if status == case.status else f"{status}, not {case.status}",
            f"{seconds:.1f}",
            " ".join(map(str, left)) or "none",
            "; ".join(faults) or (f"{count} valid" if count else "none yet"),
            went_on[0] if went_on else "from the start",
            "equal" if not differs else f"differs in {', '.join(differs)}",
        )
        console.print(f"{case.what}: {'passed' if good else 'FAILED'}")
    console.print(table)
    if fine and requested.folder is None:
        shutil.rmtree(root)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
