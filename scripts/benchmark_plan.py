"""The plan of a run against the run: parameters, floating-point operations, peak memory.

    python scripts/benchmark_plan.py [--device gpu] [NUMBER ...]

Each configuration is planned and then trained for a few steps in a process of its own. Memory is the most that its
tensors take, and the most that the process has over what it had before the model was built (on a GPU: what torch says
of it). The C library is told to give back what is freed: as a run has it, it keeps that and what lies between, and the
process has more. NUMBER chooses among the configurations, from 0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
    """Train a few steps and print what they took, in the process of their own."""
    from pytorch_lightning import Callback
    from pytorch_lightning.callbacks import WeightAveraging

    from mmtrain.build import build_data, build_lit, build_model, build_trainer, compose
    from mmtrain.callbacks.footprint import Footprint
    from mmtrain.plan.simulate import tensors_of, tensors_of_batch
    from mmtrain.plan.watch import Watch, flop_counter

    class Counted(Callback):
        """Counts the operations and the tensors of the last step."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            """Begin at the last step, when the peak of the process has been seen."""
            if trainer.global_step < STEPS - 1:
                return
            found["process"] = footprint.peak
            watch.hold("weights", tensors_of(pl_module.model))
            watch.hold("data", (t for part in batch for t in tensors_of_batch(part)))
            watch.hold("optimizer", (t for state in trainer.optimizers[0].state.values() for t in state.values()))
            averages = [c._average_model for c in trainer.callbacks if isinstance(c, WeightAveraging)]
            watch.hold("averages", (t for model in averages for t in tensors_of(model.module.model)))
            watch.__enter__()
            counter.__enter__()

    found: dict[str, int | None] = {}
    counter, watch = flop_counter(), Watch(answers=False)
    cfg = compose(overrides)
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    footprint = Footprint()
    lit = build_lit(cfg, build_model(cfg, data))
    trainer = build_trainer(cfg, monitor=None, resume_step=None, extra=[footprint, Counted()])
    trainer.fit(lit, datamodule=data)
    counter.__exit__(None, None, None)
    watch.__exit__(None, None, None)
    found["tensors"] = watch.peak.total()
    found |= {"flops": counter.get_total_flops(), "parameters": sum(p.numel() for p in lit.model.parameters())}
    print(json.dumps(found))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("numbers", nargs="*", type=int)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    table = Table(
        "configuration", "parameters", "GFLOP", "counted", "ratio", "MiB", "tensors", "ratio", "process", "ratio"
    )
    for number, (name, overrides) in enumerate(BY_NAME.items()):
        if args.numbers and number not in args.numbers:
            continue
        with tempfile.TemporaryDirectory() as folder:
            said = [*overrides.split(), f"trainer={args.device}", f"run_dir={folder}", "data.num_workers=0"]
            length = [f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=0"]
            run(["train.py", "mode=plan", *said, *length])
            plan = json.loads(Path(folder, "plan.json").read_text(encoding="utf-8"))
            found = json.loads(run([__file__, "--measure", *said, *length]).splitlines()[-1])
        same = "equal" if plan["parameters"]["total"] == found["parameters"] else f"NOT {found['parameters']:,}"
        flops, memory = plan["flops"]["step"], plan["memory"]["total"]
        table.add_row(
            name,
            f"{plan['parameters']['total']:,} {same}",
            f"{flops / 1e9:.2f}",
            f"{found['flops'] / 1e9:.2f}",
            f"{flops / found['flops']:.3f}",
            f"{memory / 2**20:.0f}",
            f"{found['tensors'] / 2**20:.0f}",
            f"{memory / found['tensors']:.3f}",
            f"{found['process'] / 2**20:.0f}",
            f"{memory / found['process']:.3f}",
        )
    Console(width=150).print(table)


def run(command: list[str]) -> str:
    """The output of a Python script; what it says when it fails."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=os.environ | EXACT
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
