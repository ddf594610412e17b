"""Move run folders, give them to two processes, and end runs in every phase: is the result that of an undisturbed run?

    python scripts/chaos_phases.py [--cases moved,two,kill,...] [--phases report,index,...] [--trials 3] [--folder DIR]

| case | what happens |
|---|---|
| moved | kill -9 in training; the folder is moved, linked or copied; the same command for the new place |
| copied | a finished run is copied and resumed |
| two | two processes for one folder, in either order and at once; two commands in the same second without a folder |
| kill, term | kill -9 or SIGTERM in the phase, then the same command |
| full | the disk is full from that phase on; space is freed, then the same command |
| read-only | the disk is read-only from that phase on; it is mounted with write access, then the same command |

Results: `equal`: weights, optimizer, metrics, ledger, best score, test metrics, predictions and index are those of an
undisturbed run. `explained`: the run ended with a message instead of a traceback, and was equal in the end. Anything
else is `lost`, with the differences. The exit status is 1 if something is lost. The last two cases mount small disks in
memory, which needs root: `unshare -rm python scripts/chaos_phases.py` provides that to any user.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import yaml
from chaos import RANKS, digest, ends, make_data, session_of, steps_of
from chaos_fault import FILLER, Fault, Moment, enter
from rich.console import Console
from rich.table import Table

FORKING = multiprocessing.get_context("forkserver")  # imports the modules of every command once
FORKING.set_forkserver_preload(["mmtrain.cli.main", "mmtrain.modes.run", "mmtrain.tasks.classification"])
DISK_MIB = 180  # a run needs 100 MB when it starts
TINY = [
    *("data.inputs.image.size=32", "data.inputs.text.vocab_size=60", "dim=16", "encoder.image.patch_size=8"),
    *("encoder.image.depth=1", "encoder.text.depth=1", "data.batch_size=8", "data.eval_batch_size=8"),
    *("trainer.log_every_n_steps=1", "checkpoint.every_n_steps=2", "task=[classification]", "test.subsets=none"),
]
SHARED = [*TINY, "trainer.max_epochs=2", "callbacks=[ema,ledger]"]
# the validation loss is lowest long before the end
WORSE = [*TINY, "trainer.max_epochs=3", "callbacks=[ledger]", "trainer.val_check_interval=3", "optimizer.lr=1"]
WORSE += ["schedule=constant", "monitor=val/loss", "checkpoint.mode=min"]
CONTRASTIVE = [o for o in SHARED if not o.startswith(("task=", "test."))] + ["task=[contrastive]"]


class Phase(NamedTuple):
    """A phase of a run.

    Attributes:
        moment: its moment.
        of: kind of the run.
    """

    moment: Moment
    of: str = "fit"


PHASES = {
    "table cache": Phase(Moment(r"\.incomplete|\.arrow")),
    "vocabulary": Phase(Moment(r"/run/.*(tokenizer|classes_)")),
    "vocabulary record": Phase(Moment(r"/run/.*vocabulary\.(json|part)")),
    "row lengths": Phase(Moment(r"/run/\.+lengths_"), "row lengths"),
    "configuration": Phase(Moment(r"/run/\.?config\.yaml")),
    "training": Phase(Moment(r"/run/metrics\.csv", count=15)),
    "checkpoint": Phase(Moment(r"/run/checkpoints/\.last\.ckpt", count=4)),
    "best checkpoint": Phase(Moment(r"/run/checkpoints/\.best\.ckpt", count=2)),
    "safetensors": Phase(Moment(r"/run/checkpoints/\.best\.safetensors")),
    "final test": Phase(Moment(r"images/test9\.png", writes=False)),
    "summary": Phase(Moment(r"/run/\.?summary\.json")),
    "report": Phase(Moment(r"/run/\.?report\.html")),
    "card": Phase(Moment(r"/run/\.?card\.md")),
    "predicting": Phase(Moment(r"images/test9\.png", writes=False), "predict"),
    "predictions": Phase(Moment(r"/run/\.?predictions\.jsonl"), "predict"),
    "indexing": Phase(Moment(r"images/test9\.png", writes=False), "index"),
    "index": Phase(Moment(r"/run/.*rows\.jsonl"), "index"),
    "index head": Phase(Moment(r"/run/.*index\.json"), "index"),
    "between runs of a sweep": Phase(Moment(r"/run/1/\.?job\.json"), "sweep"),
    "table of a sweep": Phase(Moment(r"/run/\.?sweep\.csv"), "sweep"),
}


class Lab:
    """The folder of all runs, and undisturbed runs, each created when it is first needed.

    Args:
        root: a new folder.
        console: prints the progress.
    """

    def __init__(self, root: Path, console: Console) -> None:
        self.root = root
        self.console = console
        self.calm: dict[str, dict[str, str]] = {}
        make_data(root / "data")
        self.data = ["data=files", f"data.root={root / 'data'}"]

    def words(self, kind: str, folder: Path) -> list[str]:
        """Overrides of a run."""
        own = {
            "worse": [*WORSE, "resume=auto"],
            "ranks": [*SHARED, *RANKS, "resume=auto"],
            "row lengths": [*SHARED, "data.bucket.by=text", "resume=auto"],
            "predict": ["mode=predict"],
            "index": ["mode=predict", f"predict.index={folder / 'index'}"],
            "test": ["mode=test"],
            "contrastive": [*CONTRASTIVE, "resume=auto"],
            "sweep": ["-m", "seed=0,1", *SHARED, "resume=auto"],
        }.get(kind, [*SHARED, "resume=auto"])
        of_a_run = kind in ("predict", "index", "test")
        return [*own, *([] if of_a_run else self.data), f"run_dir={folder}"]

    def start(
        self,
        words: list[str],
        log: Path,
        *,
        fault: Fault | None = None,
        cache: Path | None = None,
        cwd: Path | None = None,
    ) -> BaseProcess:
        """Start a command as a process.

        Args:
            words: of the command line.
            log: file for its output.
            fault: its fault.
            cache: cache of tables, instead of the shared one.
            cwd: working directory.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {} if cache is None else {"HF_HOME": str(cache)}
        context: BaseContext = FORKING if cache is None else multiprocessing.get_context("spawn")
        process: BaseProcess = context.Process(target=enter, args=(words, log, environment, cwd or self.root, fault))  # type: ignore[attr-defined]
        before = {name: os.environ.get(name) for name in environment}
        os.environ |= environment  # a new interpreter reads it during imports
        process.start()
        for name, value in before.items():
            os.environ[name] = str(value)
        return process

    def run(self, words: list[str], log: Path, *, fault: Fault | None = None, cache: Path | None = None) -> int:
        """Run a command to its end, and return its exit status."""
        return status_of(self.start(words, log, fault=fault, cache=cache))

    def undisturbed(self, kind: str) -> Path:
        """The folder of an undisturbed run."""
        folder = self.root / "calm" / kind.replace(" ", "_") / "run"
        if kind in self.calm:
            return folder
        before = {"predict": "fit", "index": "contrastive"}.get(kind)
        if before is not None:
            shutil.copytree(self.undisturbed(before), folder)
        log = folder.parent / "log"
        if status := self.run(self.words(kind, folder), log):
            raise RuntimeError(f"the undisturbed run {kind} ended with {status}; {log} says why")
        self.calm[kind] = facts_of(folder)
        return folder

    def compare(self, kind: str, folder: Path) -> list[str]:
        """Differences to the undisturbed run."""
        self.undisturbed(kind)
        try:
            result = facts_of(folder)
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            return [f"{type(error).__name__}: {error}"]
        calm = self.calm[kind]
        return [key for key in sorted(calm.keys() | result.keys()) if calm.get(key) != result.get(key)]


def status_of(process: BaseProcess) -> int:
    """The exit status at the end; negative: the signal that ended it."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def facts_of(folder: Path) -> dict[str, str]:
    """Everything that must be equal, each as a digest, for a run or every run of a sweep."""
    runs = [folder] if (folder / "checkpoints").exists() else sorted(p.parent for p in folder.glob("*/job.json"))
    results: dict[str, str] = {}
    for run in runs:
        own = ends(run)
        summary = json.loads((run / "summary.json").read_text())
        own |= {f"summary {key}": repr(summary[key]) for key in ("status", "steps", "best", "test")}
        for name in ("report.html", "card.md", "config.yaml", "checkpoints/best.safetensors"):
            own[name] = str((run / name).stat().st_size > 0)
        if (run / "predictions.jsonl").exists():
            own["predictions"] = digest((run / "predictions.jsonl").read_text())
        if (run / "index" / "index.json").exists():
            head = json.loads((run / "index" / "index.json").read_text())
            own["index"] = digest([head[key] for key in ("weights", "step", "vectors", "sha256")])
        results |= {f"{run.name} {key}" if len(runs) > 1 else key: value for key, value in own.items()}
    if len(runs) > 1:
        results["sweep.csv"] = str(len((folder / "sweep.csv").read_text().splitlines()))
    return results


# ------------------------------------------------------------------------------------------- disks


def can_mount(root: Path) -> bool:
    """Whether this process can mount disks."""
    place = root / "try"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False)
    if done.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)
    return done.returncode == 0


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk in memory."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        repair(place)
        subprocess.run(["umount", "-l", str(place)], check=True)


def repair(place: Path) -> None:
    """Free space, and restore write access."""
    (place / FILLER).unlink(missing_ok=True) if os.access(place, os.W_OK) else None
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for _ in range(mounts.count(str(place)) - 1):
        subprocess.run(["umount", "-l", str(place)], check=True)
    (place / FILLER).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- cases


class Row(NamedTuple):
    """A row of the table."""

    case: str
    phase: str
    status: str
    result: str


def in_phase(lab: Lab, case: str, name: str) -> Row:
    """A fault in a phase, its repair, and the same command."""
    place = lab.root / case / name.replace(" ", "_")
    if case in ("full", "read-only"):
        with small_disk(place):
            return _in_phase(lab, case, name, place)
    place.mkdir(parents=True)
    return _in_phase(lab, case, name, place)


def _in_phase(lab: Lab, case: str, name: str, place: Path) -> Row:
    kind = PHASES[name].of
    folder, logs = place / "run", lab.root / "logs" / f"{case}-{name.replace(' ', '-')}"
    lab.undisturbed(kind)
    if kind in ("predict", "index"):  # with results of an earlier command, which must not be lost
        shutil.copytree(lab.undisturbed(kind), folder)
    before = _results(folder)
    cache = place / "cache" if name == "table cache" else None
    mark = logs.with_suffix(".mark")
    fault = Fault(case, PHASES[name].moment, place, mark)
    log = logs.with_suffix(".fault")
    status = lab.run(lab.words(kind, folder), log, fault=fault, cache=cache)
    text = log.read_text()
    kept = _results(folder)
    if case in ("full", "read-only"):
        repair(place)
    if not mark.exists():
        return Row(case, name, str(status), "lost: the phase was not reached")
    faults = [] if kept in (before, _results(lab.undisturbed(kind))) else ["earlier results are damaged"]
    if "Traceback" in text:
        faults.append(
            "traceback " + next(line for line in reversed(text.splitlines()) if re.match(r"\w[\w.]*: ", line))
        )
    if case in ("full", "read-only") and status not in (0, 1, 2):
        faults.append(f"status {status}")
    if case == "term" and status not in (0, 143):
        faults.append(f"status {status} instead of 143")
    log = logs.with_suffix(".again")
    again = lab.run(lab.words(kind, folder), log, cache=cache)
    if again != 0:
        tail = log.read_text().strip().splitlines()[-2:]
        faults.append(f"the same command ended with {again}: {' '.join(tail)}")
    faults += [f"{what} differs" for what in lab.compare(kind, folder)]
    good = "explained" if case in ("full", "read-only") and status != 0 else "equal"
    return Row(case, name, str(status), f"lost: {'; '.join(faults)}" if faults else good)


def _results(folder: Path) -> dict[str, str]:
    """Results of commands after training, which such a command replaces."""
    names = ("predictions.jsonl", "index/index.json", "index/rows.jsonl", "index/vectors.safetensors")
    return {name: digest((folder / name).read_bytes().hex()) for name in names if (folder / name).exists()}


def _kill_at(lab: Lab, kind: str, folder: Path, step: int, log: Path) -> None:
    process = lab.start(lab.words(kind, folder), log)
    _until(step)(folder, process)
    process.kill()
    process.join()


def moved(lab: Lab) -> Iterator[Row]:
    """Kill in training, move, resume."""

    def rename(old: Path, new: Path) -> None:
        old.rename(new)

    def link(old: Path, new: Path) -> None:
        real = old.with_name("elsewhere")
        old.rename(real)
        new.symlink_to(real)

    def copy(old: Path, new: Path) -> None:
        shutil.copytree(old, new)
        shutil.rmtree(old)

    calm = lab.undisturbed("worse")
    best = json.loads((calm / "summary.json").read_text())["best"]["step"]
    last = steps_of(calm)
    for name, move in {"renamed": rename, "behind a link": link, "copied away": copy}.items():
        place, log = lab.root / "moved" / name.replace(" ", "-"), lab.root / "logs" / f"moved-{name.replace(' ', '-')}"
        step = (best + last) // 2
        _kill_at(lab, "worse", place / "before", step, log)
        move(place / "before", place / "after")
        status = lab.run(lab.words("worse", place / "after"), log)
        differs = lab.compare("worse", place / "after")
        what = f"{name}; best at step {best} of {last}, killed at {step}"
        yield Row("moved", what, str(status), f"lost: {', '.join(differs)} differ" if differs else "equal")


def copied(lab: Lab) -> Iterator[Row]:
    """Copy a finished run and resume it."""
    folder = lab.root / "copied" / "run"
    shutil.copytree(lab.undisturbed("worse"), folder)
    status = lab.run(lab.words("worse", folder), lab.root / "logs" / "copied")
    differs = lab.compare("worse", folder)
    yield Row("copied", "done", str(status), f"lost: {', '.join(differs)} differ" if differs else "equal")


def two(lab: Lab, trials: int) -> Iterator[Row]:
    """Two processes for one folder."""
    for trial in range(trials):
        yield _two(lab, f"at once, trial {trial + 1}", "fit", ["fit", "fit"])
    yield _two(lab, "the second one second later", "fit", ["fit", "fit"], wait=lambda folder, process: time.sleep(1))
    yield _two(lab, "the second in training", "fit", ["fit", "fit"], wait=_until(6))
    yield _two(lab, "a test in training", "fit", ["fit", "test"], wait=_until(6))
    yield _two(lab, "predictions in training", "fit", ["fit", "predict"], wait=_until(6))
    yield _two(lab, "two ranks each", "ranks", ["ranks", "ranks"], wait=_until(6))
    yield _after_kill(lab)
    for trial in range(trials):
        yield _without_folder(lab, trial)


def _until(step: int) -> Callable[[Path, BaseProcess], None]:
    def wait(folder: Path, process: BaseProcess) -> None:
        while process.is_alive() and steps_of(folder) < step:
            time.sleep(0.002)

    return wait


def _two(
    lab: Lab,
    name: str,
    kind: str,
    kinds: list[str],
    *,
    wait: Callable[[Path, BaseProcess], None] = lambda folder, process: None,
) -> Row:
    place = lab.root / "two" / re.sub(r"\W+", "-", name)
    folder, logs = place / "run", [place / f"log{number}" for number in range(2)]
    lab.undisturbed(kind)
    first = lab.start(lab.words(kinds[0], folder), logs[0])
    wait(folder, first)
    second = lab.start(lab.words(kinds[1], folder), logs[1])
    statuses = [status_of(first), status_of(second)]
    faults = [f"statuses {statuses}"] if sorted(statuses) != [0, 2] else []
    if not faults:
        loser = statuses.index(2)
        winner = (first, second)[1 - loser]
        if f"in use by process {winner.pid} on " not in logs[loser].read_text():
            faults.append("the message has no owner: " + " ".join(logs[loser].read_text().split())[-120:])
    faults += [f"{what} differs" for what in lab.compare(kind, folder)]
    return Row("two", name, " ".join(map(str, statuses)), f"lost: {'; '.join(faults)}" if faults else "equal")


def _after_kill(lab: Lab) -> Row:
    """The folder is free as soon as its process is gone, even if its workers still run."""
    folder, log = lab.root / "two" / "after-kill" / "run", lab.root / "logs" / "after-kill"
    words = [*lab.words("fit", folder), "data.num_workers=2"]
    process = lab.start(words, log)
    _until(6)(folder, process)
    process.kill()
    process.join()
    assert process.pid is not None
    left = len(session_of(process.pid))
    status = lab.run(words, log)
    differs = lab.compare("fit", folder)
    name = f"the first killed, {left} of its workers still running"
    return Row("two", name, str(status), f"lost: {', '.join(differs)} differ" if differs or status else "equal")


def _without_folder(lab: Lab, trial: int) -> Row:
    """Two commands in the same second without a folder."""
    place = lab.root / "two" / f"no-folder-{trial}"
    place.mkdir(parents=True)
    words = [*SHARED, *lab.data]
    processes = [lab.start([*words, f"seed={seed}"], place / f"log{seed}", cwd=place) for seed in range(2)]
    statuses = [status_of(process) for process in processes]
    folders = sorted(path.parent for path in place.glob("outputs/*/*/summary.json"))
    faults = [f"{len(folders)} folders"] if len(folders) != 2 else []
    seeds = {str(yaml.safe_load((f / "config.yaml").read_text())["seed"]): f for f in folders}
    if set(seeds) == {"0", "1"}:
        faults += [f"{what} differs" for what in lab.compare("fit", seeds["0"])]
    else:
        faults.append(f"seeds {sorted(seeds)}")
    name = f"no folder named, trial {trial + 1}: {', '.join(f.name for f in folders)}"
    return Row("two", name, " ".join(map(str, statuses)), f"lost: {'; '.join(faults)}" if faults else "equal")


def rows_of(lab: Lab, cases: list[str], phases: list[str], trials: int) -> Iterator[Row]:
    """The rows of the table."""
    mounts = can_mount(lab.root)
    for case in cases:
        if case == "moved":
            yield from moved(lab)
        elif case == "copied":
            yield from copied(lab)
        elif case == "two":
            yield from two(lab, trials)
        elif case in ("full", "read-only") and not mounts:
            yield Row(case, "", "", "not run, because this user cannot mount a disk")
        else:
            for name in phases:
                yield in_phase(lab, case, name)


CASES = ("moved", "copied", "two", "kill", "term", "full", "read-only")


def main() -> int:
    """Run all cases and print the table; 1 if something is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--phases", default=",".join(PHASES), help="of kill, term, full and read-only")
    parser.add_argument("--trials", type=int, default=3, help="of two processes that start at once")
    parser.add_argument("--folder", type=Path, default=None)
    requested = parser.parse_args()
    cases, phases = requested.cases.split(","), requested.phases.split(",")
    for name, known in [*((case, CASES) for case in cases), *((phase, tuple(PHASES)) for phase in phases)]:
        if name not in known:
            parser.error(f"there is no {name}; choose from {', '.join(known)}")
    root = Path(tempfile.mkdtemp(prefix="chaos-phases-")) if requested.folder is None else requested.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(root / "cache")}
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(title="run folders: moved, shared, and ended in every phase")
    for heading in Row._fields:
        table.add_column(heading, overflow="fold")
    lost = 0
    for row in rows_of(Lab(root, console), cases, phases, requested.trials):
        console.print(f"{row.case}, {row.phase}: {row.result}", markup=False, soft_wrap=True)
        table.add_row(*row)
        lost += row.result.startswith("lost")
    console.print(table)
    if lost == 0 and requested.folder is None:
        shutil.rmtree(root)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
