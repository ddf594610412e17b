"""Kill training repeatedly, resume it each time, and compare the result with an undisturbed run.

    python scripts/chaos.py [--kills 30] [--cases plain,kept,...] [--seed 0] [--folder DIR]
    python scripts/chaos.py --elastic [--folder DIR]

Every case is a configuration with a state that a resumed run could lose. A calm run and a disturbed one start equally.
The disturbed one is killed with kill -9 at random moments, some of them while a checkpoint is written. It is resumed
with resume=auto and the same command. At the end the SHA-256 of all weights and of the optimizer's state, metrics.csv
without timings, and the ledger of sample ids must be equal. The exit status is 1 if they are not.

--elastic changes from two processes to one and back, with a kill before each change. Every sample must be used once per
epoch, and the losses must be those of a calm run with one process within 1e-3. DIR/elastic.png shows both.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmark_files import write_picture
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
ROWS = {"train": 90, "val": 24, "test": 24}
SHARED = [
    "data.inputs.image.size=32",
    "data.inputs.text.vocab_size=60",
    "dim=16",
    "encoder.image.patch_size=8",
    "encoder.image.depth=1",
    "encoder.text.depth=1",
    "data.batch_size=8",
    "data.eval_batch_size=8",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_n_steps=2",
]
FILES = ["data=files", "data.root={data}"]
EMA_LEDGER = "callbacks=[ema,ledger]"
STILL = [  # dropout is drawn by process
    *("encoder.image.drop_path=0", "encoder.image.dropout=0", "encoder.text.dropout=0", "fusion.dropout=0"),
    *("task=[contrastive,classification]", "task.classification.dropout=0", "optimizer.lr=1e-3", "optimizer.eps=1e-3"),
]
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
CASES = {
    "plain": [*FILES, EMA_LEDGER],
    "kept": [*FILES, EMA_LEDGER, "balance=famo", "task.contrastive.queue_size=16", "data.modality_dropout=0.3"],
    "accumulated": [*FILES, EMA_LEDGER, "trainer.accumulate_grad_batches=2", "data.num_workers=2"],
    "bucketed": [*FILES, EMA_LEDGER, "data.bucket.by=text", "data.bucket.max_tokens=96", "data.num_workers=1"],
    "mixed": [
        *("data=mix", "+part@data.parts.a=files", "+part@data.parts.b=files", EMA_LEDGER),
        *("data.parts.a.source.root={data}", "data.parts.b.source.root={data}", "data.num_workers=4"),
    ],
    "judged": [
        *(*FILES, "callbacks=[ema,early_stopping,ledger]", "trainer.val_check_interval=5"),
        *("balance=uncertainty", "checkpoint.background=true"),
    ],
    "two ranks": [
        *FILES,
        EMA_LEDGER,
        *RANKS,
        "balance=gradvac",
        "data.num_workers=1",
        "task.contrastive.queue_size=16",
    ],
}


def make_data(root: Path) -> None:
    """Images with captions and labels; one in seven has no caption, one in nine no label or no image."""
    (root / "images").mkdir(parents=True)
    draw = random.Random(0)
    for split, count in ROWS.items():
        rows = []
        for number in range(count):
            name, kind = f"images/{split}{number}.png", draw.choice(("calm", "busy", "odd"))
            write_picture(root / name, draw.randrange(10**6), width=32, height=32)
            words = " ".join(draw.choice(("red", "blue", "old", "new", "tall")) for _ in range(draw.randint(1, 9)))
            rows.append(
                {
                    "id": f"{split}-{number}",
                    "image": None if number % 9 == 4 else name,
                    "caption": None if number % 7 == 3 else f"a {kind} {words}",
                    "label": None if number % 9 == 5 else kind,
                }
            )
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(case: str, data: Path, folder: Path) -> list[str]:
    """The command of a case, which also resumes its run."""
    overrides = [override.format(data=data) for override in CASES[case]]
    return [sys.executable, str(TRAIN), *SHARED, *overrides, f"run_dir={folder}", "resume=auto"]


def run(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in its own session, so that a kill also ends workers and ranks, as on a cluster."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)


def steps_of(folder: Path) -> int:
    """The last step in metrics.csv."""
    path = folder / "metrics.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def disturb(case: str, data: Path, folder: Path, kills: int, last: int, draw: random.Random) -> dict[str, Any]:
    """Run a case to its end with this number of kills, and return what was done."""
    words, log = command(case, data, folder), folder.parent / "disturbed.log"
    done = {"kills": 0, "while writing": 0, "runs": 0, "at": []}
    moments = sorted(draw.sample(range(1, last), kills))
    while True:
        process = run(words, log)
        done["runs"] += 1
        if done["kills"] < kills:
            while_writing = draw.random() < 1 / 3
            moment = moments[done["kills"]]
            # earlier, because it waits until a checkpoint is written, and may miss some
            if _wait(process, folder, moment // 2 if while_writing else moment, while_writing):
                time.sleep(0 if while_writing else draw.uniform(0, 0.15))
                done["at"].append(steps_of(folder))
                _kill(process)
                done["kills"] += 1
                done["while writing"] += bool(list((folder / "checkpoints").glob(".*.part")))
                continue
        status = process.wait()
        if status != 0:
            raise RuntimeError(f"{' '.join(words)} ended with {status}; {log} says why")
        return done


def _wait(process: "subprocess.Popen[bytes]", folder: Path, step: int, while_writing: bool) -> bool:
    """Wait until a step, and until a checkpoint is being written if requested; False if the run ended before."""
    while process.poll() is None:
        there = steps_of(folder) >= step
        if there and (not while_writing or list((folder / "checkpoints").glob(".*.part"))):
            return True
        time.sleep(0.0005 if there else 0.01)
    return False


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill only the launcher: its ranks and workers must end, too."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left := session_of(process.pid):
        raise RuntimeError(f"processes {left} remained after a kill")


def session_of(leader: int) -> list[int]:
    """Living processes of a session, and ranks that name it, which have their own sessions."""
    results = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            environment = (path.parent / "environ").read_bytes()
        except OSError:
            continue
        mine = int(fields[3]) == leader or f"MMTRAIN_LAUNCHER={leader}\0".encode() in environment
        if mine and fields[0] != "Z":
            results.append(int(path.parent.name))
    return results


def losses_of(folder: Path) -> list[float]:
    """The training loss of each step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def elastic(root: Path, console: Console) -> bool:
    """Two processes, one, two: whether every sample came once per epoch, and the losses are those of a calm run."""
    folder = root / "run"
    ranks = [*FILES, "callbacks=[ledger]", *STILL]
    words = [sys.executable, str(TRAIN), *SHARED, *(o.format(data=root / "data") for o in ranks), "resume=auto"]
    if status := run([*words, f"run_dir={root / 'calm'}"], root / "calm.log").wait():
        raise RuntimeError(f"the calm run ended with {status}; {root / 'calm.log'} says why")
    last = steps_of(root / "calm")
    for processes, until in ((2, last // 3), (1, 2 * last // 3), (2, last)):
        more = [] if processes == 1 else RANKS
        process = run([*words, f"run_dir={folder}", *more], root / "disturbed.log")
        if until < last and _wait(process, folder, until, while_writing=False):
            console.print(f"{processes} processes: killed at step {steps_of(folder)}")
            _kill(process)
        elif status := process.wait():
            raise RuntimeError(f"a run of {processes} processes ended with {status}; {root / 'disturbed.log'} says why")
    epochs: dict[int, list[str]] = {}
    for line in (folder / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        epochs.setdefault(entry["epoch"], []).extend(entry["ids"])
    once = all(sorted(ids) == sorted(f"train-{n}" for n in range(ROWS["train"])) for ids in epochs.values())
    calm, moved = losses_of(root / "calm"), losses_of(folder)
    largest = max(abs(a - b) for a, b in zip(calm, moved, strict=True))
    console.print(
        f"{len(epochs)} epochs, every sample once in each: {once}; largest difference of a loss: {largest:.2g}"
    )
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="training loss")
    axes.plot(range(1, last + 1), calm, linewidth=4, alpha=0.4, label="one process, undisturbed")
    axes.plot(range(1, last + 1), moved, "--", label="two processes, one, two; killed twice")
    axes.legend()
    figure.savefig(root / "elastic.png", dpi=120)
    console.print(f"{root / 'elastic.png'}")
    return once and largest < 1e-3


def digest(value: object) -> str:
    """SHA-256 of nested dicts and lists with tensors."""
    result = hashlib.sha256()

    def feed(value: object) -> None:
        if isinstance(value, Tensor):
            result.update(f"{value.dtype}{tuple(value.shape)}".encode())
            result.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        elif isinstance(value, dict):
            for key, part in value.items():
                result.update(repr(key).encode())
                feed(part)
        elif isinstance(value, list | tuple):
            for part in value:
                feed(part)
        else:
            result.update(repr(value).encode())

    feed(value)
    return result.hexdigest()


def ends(folder: Path) -> dict[str, str]:
    """Everything that must be equal, each as a digest."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
    rest = {k: checkpoint[k] for k in ("balance", "tasks", "lr_schedulers", "global_step", "epoch") if k in checkpoint}
    return {
        "weights": digest(checkpoint["state_dict"]),
        "optimizer": digest(checkpoint["optimizer_states"]),
        "rest": digest(rest),
        "best": digest(best["state_dict"]),
        "metrics": digest(rows),
        "ledger": digest((folder / "ledger.jsonl").read_text()),
    }


def main() -> int:
    """Run all cases and print the table; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--elastic", action="store_true")
    requested = parser.parse_args()
    names = requested.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no case {unknown[0]}; choose from {', '.join(CASES)}")
    root = Path(tempfile.mkdtemp(prefix="chaos-")) if requested.folder is None else requested.folder
    make_data(root / "data")
    console = Console(width=None if sys.stdout.isatty() else 150)
    if requested.elastic:
        return 0 if elastic(root, console) else 1
    table = Table(title=f"kill -9, seed {requested.seed}")
    for heading in ("case", "kills", "while writing", "steps", "killed at", "weights", "equal"):
        table.add_column(heading, overflow="fold")
    draw, all_equal, left = random.Random(requested.seed), True, requested.kills
    for number, name in enumerate(names):
        folder = root / name.replace(" ", "_")
        folder.mkdir()
        status = run(command(name, root / "data", folder / "calm"), folder / "calm.log").wait()
        if status != 0:
            raise RuntimeError(f"the calm run of {name} ended with {status}; {folder / 'calm.log'} says why")
        last = steps_of(folder / "calm")
        kills = min(left // (len(names) - number), last - 1)
        done = disturb(name, root / "data", folder / "run", kills, last, draw)
        left -= done["kills"]
        calm, run_over = ends(folder / "calm"), ends(folder / "run")
        differs = [key for key in calm if calm[key] != run_over[key]]
        all_equal &= not differs
        table.add_row(
            name,
            str(done["kills"]),
            str(done["while writing"]),
            str(last),
            " ".join(map(str, done["at"])),
            calm["weights"][:12],
            "all" if not differs else f"not {', '.join(differs)}",
        )
        console.print(f"{name}: {done['kills']} kills, {'equal' if not differs else f'differs in {differs}'}")
    console.print(table)
    if left:
        console.print(f"{left} kills had no effect, because a run ended before")
    if all_equal and requested.folder is None:
        shutil.rmtree(root)
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
