"""Samples per second of two processes with one thread each relative to one process, and the time of the difference.

    python scripts/benchmark_ranks.py [--ranks 2] [--strategy ddp] [--rounds 3] [group=option ...] [key=value ...]

Both train the same steps of the same global batch, alternately, so a slower machine affects both. Overrides are those
of train.py. Times of a step are those of `trainer.profile` in the last round.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STEPS = 30
PLAIN = [
    *(f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=0", "trainer.limit_test_batches=0", "~callbacks.ema"),
    *("data.num_workers=0", "checkpoint.safetensors=false", "trainer.profile=true"),
]


def run(folder: Path, overrides: list[str]) -> tuple[float, dict[str, float]]:
    """Samples per second, and the milliseconds of a step by component."""
    command = [sys.executable, str(ROOT / "train.py"), f"run_dir={folder}", *PLAIN, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    with (folder / "profile.csv").open(newline="", encoding="utf-8") as file:
        parts = {row["part"]: 1000 * float(row["seconds_per_step"]) for row in csv.DictReader(file)}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rates = [float(r["time/samples_per_second"]) for r in csv.DictReader(file) if r["time/samples_per_second"]]
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["steps"] == STEPS
    return statistics.median(rates[1:]), parts


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--strategy", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--rounds", type=int, default=3)
    args, overrides = parser.parse_known_args()
    overrides += ["trainer.log_every_n_steps=5"]
    several = [f"trainer={args.strategy}", "trainer.accelerator=cpu", f"trainer.devices={args.ranks}"]
    ratios, rates = [], {}
    parts: dict[str, dict[str, float]] = {}
    for _ in range(args.rounds):
        for name, more in (("one", []), ("several", several)):
            with tempfile.TemporaryDirectory() as folder:
                rates[name], parts[name] = run(Path(folder), [*more, *overrides])
        ratios.append(rates["several"] / rates["one"])
    console = Console(width=110)
    message = (
        f"{args.ranks} processes over one: {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"
    )
    console.print(f"{message}; last round {rates['several']:.0f} and {rates['one']:.0f} samples/s")
    table = Table("ms of a step", "one process", f"each of {args.ranks}", f"one / {args.ranks}")
    for name in dict.fromkeys([*parts["one"], *parts["several"]]):
        one, each = parts["one"].get(name, 0.0), parts["several"].get(name, 0.0)
        table.add_row(name, f"{one:.1f}", f"{each:.1f}", f"{one / args.ranks:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
