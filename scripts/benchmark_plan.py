"""The plan of a run compared with the run: parameters, floating-point operations, peak memory.

    python scripts/benchmark_plan.py [--device gpu] [--ranks 2] [NUMBER ...] [-- OVERRIDE ...]

Each configuration is planned and then trained for a few steps in its own process. Memory is the peak of its tensors,
and the peak of the process above its memory before the model was built (on a GPU: as torch reports it). The C library
is set to return freed memory. In a normal run it keeps that memory and gaps in it, and the process has more. Steps per
second are those without counting, next to the plan's estimate (plan.flops_per_second) with the operations per second of
the first configuration. NUMBER chooses configurations, from 0. Overrides after `--` apply to all of them, such as
trainer.precision=bf16-mixed.

With --ranks, this number of processes share the weights (FSDP2), each as its own node. Tensors are not counted then,
because those that FSDP frees keep their storage.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STEPS = 4
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # mallopt(3)
BY_NAME = {
    "default, batch 512": "data.batch_size=512",
    "batch 1024 in 4 parts": "data.batch_size=1024 trainer.accumulate_grad_batches=4",
    "deep ViT, checkpointing": "data.batch_size=512 encoder.image.depth=12 encoder.image.checkpointing=true",
    "resnet, concat": "encoder=resnet fusion=concat data.batch_size=256 task=[classification]",
    "gru, gated, classification": "encoder/text=gru fusion=gated data.batch_size=512 task=[classification]",
    "masked image, 160 pixels": "task=[masked_image] data.inputs.image.size=160 data.batch_size=128",
    "captioning, q_former": "task=[captioning,classification] fusion=q_former data.batch_size=512",
    "width 384, mgda": "dim=384 balance=mgda data.batch_size=256",
}


def measure(overrides: list[str]) -> None:
    """Train a few steps in this process, and print their resources."""
    import torch
    from pytorch_lightning import Callback
    from pytorch_lightning.callbacks import WeightAveraging

    from mmtrain.build import build_data, build_lit, build_model, compose
    from mmtrain.modes.plan.simulate import tensors_of, tensors_of_batch
    from mmtrain.modes.plan.watch import Watch, flop_counter
    from mmtrain.training.callbacks.footprint import PeakMemoryMonitor
    from mmtrain.training.trainer import build_trainer

    class Counted(Callback):
        """Counts the operations and the tensors of the last step."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            """Start at the last step, after the peak of the process and the timing of the others."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.setdefault(trainer.global_step, time.perf_counter())
            if trainer.global_step < STEPS - 1:
                return
            results["process"] = footprint.peak
            counter.__enter__()
            if sharded:
                return
            watch.hold("weights", tensors_of(pl_module.model))
            watch.hold("data", (t for part in batch for t in tensors_of_batch(part)))
            watch.hold("optimizer", (t for state in trainer.optimizers[0].state.values() for t in state.values()))
            averages = [c._average_model for c in trainer.callbacks if isinstance(c, WeightAveraging)]
            watch.hold("averages", (t for model in averages for t in tensors_of(model.module.model)))
            watch.__enter__()

    results: dict[str, float | None] = {}
    times: dict[int, float] = {}
    counter, watch = flop_counter(), Watch(answers=False)
    cfg = compose(overrides)
    sharded = cfg.trainer.strategy == "fsdp"
    if sharded and torch.cuda.is_available() and torch.cuda.device_count() < int(os.environ["WORLD_SIZE"]):
        sys.exit("there are fewer GPUs than ranks: try --device cpu")
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    footprint = PeakMemoryMonitor()
    lit = build_lit(cfg, build_model(cfg, data))
    trainer = build_trainer(cfg, monitor=None, resume_step=None, extra=[footprint, Counted()])
    trainer.fit(lit, datamodule=data)
    if not sharded:
        watch.__exit__(None, None, None)
        results["tensors"] = watch.peak.total()
    counter.__exit__(None, None, None)
    results |= {"flops": counter.get_total_flops(), "parameters": sum(p.numel() for p in lit.model.parameters())}
    results["steps_per_second"] = (STEPS - 2) / (times[STEPS - 1] - times[1])
    print(json.dumps(results))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("numbers", nargs="*", type=int)
    own, more = (sys.argv[1:], []) if "--" not in sys.argv else split_at(sys.argv[1:], "--")
    args = parser.parse_args(own)
    if args.measure:
        measure(args.measure)
        return
    table = Table(
        *("configuration", "parameters", "GFLOP", "counted", "ratio", "MiB", "tensors", "ratio", "process", "ratio"),
        *("steps/s", "by the first's rate"),
    )
    rate = None  # floating-point operations per second of the first configuration
    for number, (name, overrides) in enumerate(BY_NAME.items()):
        if args.numbers and number not in args.numbers:
            continue
        plan, result = plan_and_run([*overrides.split(), f"trainer={args.device}", *more], args.ranks)
        same = "equal" if plan["parameters"]["total"] == result["parameters"] else f"NOT {result['parameters']:,}"
        speed = result["steps_per_second"]
        rate = rate or result["flops"] * speed
        flops, memory = plan["flops"]["step"], plan["memory"]["total"]
        table.add_row(
            name,
            f"{plan['parameters']['total']:,} {same}",
            f"{flops / 1e9:.2f}",
            f"{result['flops'] / 1e9:.2f}",
            f"{flops / result['flops']:.3f}",
            f"{memory / 2**20:.0f}",
            f"{result['tensors'] / 2**20:.0f}" if "tensors" in result else "",
            f"{memory / result['tensors']:.3f}" if "tensors" in result else "",
            f"{result['process'] / 2**20:.0f}",
            f"{memory / result['process']:.3f}",
            f"{speed:.3f}",
            f"{rate / flops:.3f}",
        )
    Console(width=150).print(table)


def split_at(words: list[str], mark: str) -> tuple[list[str], list[str]]:
    """The words before and after a mark."""
    place = words.index(mark)
    return words[:place], words[place + 1 :]


def plan_and_run(overrides: list[str], ranks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """plan.json, and the measured values: memory of the largest rank, operations of all ranks."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*overrides, f"run_dir={folder}", "data.num_workers=0"]
        arguments += [f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=0"]
        shared = ["trainer.strategy=fsdp", "~callbacks.ema"] if ranks else []
        run(["train.py", "mode=plan", *arguments, *shared, *([f"plan.devices={ranks}"] if ranks else [])])
        plan = json.loads(Path(folder, "plan.json").read_text(encoding="utf-8"))
        nodes = [*shared, f"trainer.num_nodes={ranks}"] if ranks else []
        command = [__file__, "--measure", *arguments, *nodes]
        with ThreadPoolExecutor(max_workers=max(1, ranks)) as pool:
            port = free_port()
            environments = [of_rank(rank, ranks, port) for rank in range(ranks)] or [{}]
            outputs = list(pool.map(lambda own: run(command, own), environments))
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    most: dict[str, Any] = max(results, key=lambda each: each["process"])
    return plan, most | {"flops": sum(each["flops"] for each in results)}


def free_port() -> int:
    """A port for the ranks."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def of_rank(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment of a rank that is its own node."""
    place = {"RANK": str(rank), "NODE_RANK": str(rank), "GROUP_RANK": str(rank), "LOCAL_RANK": "0"}
    return place | {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """The output of a Python script; its error output if it fails."""
    environment = os.environ | EXACT | (environment or {})
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
