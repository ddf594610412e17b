"""The gradient of one global batch in float64 for each way to split it: processes, shards of weights, micro-batches.

    python scripts/check_split.py [--batch 48] [group=option ...] [key=value ...]

Each way takes one step of plain gradient descent with learning rate 1 through the command itself, so the gradient is
the weight before minus the weight after. The table shows the norm of each component's gradient, and the largest
difference to one process. Dropout and drop path are disabled, because their draws depend on the micro-batch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
TASKS = "task=[contrastive,matching,masked_text,classification]"
RANKS = "trainer.accelerator=cpu"
CUTS = {
    "2 processes, ddp": ["trainer=ddp", RANKS, "trainer.devices=2"],
    "3 processes, ddp": ["trainer=ddp", RANKS, "trainer.devices=3"],
    "2 processes, fsdp": ["trainer=fsdp", RANKS, "trainer.devices=2"],
    "3 processes, fsdp": ["trainer=fsdp", RANKS, "trainer.devices=3"],
    "2 parts": ["trainer.accumulate_grad_batches=2"],
    "4 parts": ["trainer.accumulate_grad_batches=4"],
    "2 processes of 2 parts, ddp": ["trainer=ddp", RANKS, "trainer.devices=2", "trainer.accumulate_grad_batches=2"],
    "2 processes of 2 parts, fsdp": ["trainer=fsdp", RANKS, "trainer.devices=2", "trainer.accumulate_grad_batches=2"],
}
DESCENT = ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps", "optimizer.weight_decay=0"]
ONE_STEP = [
    *("trainer.max_steps=1", "trainer.precision=64", "trainer.gradient_clip_val=null", "schedule=constant"),
    *("schedule.warmup_ratio=0", "trainer.limit_val_batches=0", "trainer.limit_test_batches=0", "~callbacks.ema"),
    *("checkpoint.safetensors=false", "data.num_workers=0", "encoder.image.drop_path=0", "encoder.image.dropout=0"),
    *("encoder.text.dropout=0", "fusion.dropout=0", "task.contrastive.dropout=0", "task.classification.dropout=0"),
    "task.matching.dropout=0",
]
PARTS = {
    "image tower": ("model.encoders.image.",),
    "text tower": ("model.encoders.text.",),
    "fusion": ("model.fusion.",),
    "heads": ("model.tasks.",),
    "temperature": ("model.tasks.contrastive.log_scale",),
}


def weights(folder: Path, *overrides: str) -> dict[str, Tensor]:
    """Weights of the model after one step."""
    command = [sys.executable, str(ROOT / "train.py"), f"run_dir={folder}", TASKS, *ONE_STEP, *DESCENT, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    state: dict[str, Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("model.") and value.is_floating_point()}


def by_part(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """All numbers of a component in one tensor."""
    results: dict[str, list[Tensor]] = defaultdict(list)
    for name, value in values.items():
        for part, beginnings in PARTS.items():
            if name.startswith(beginnings):
                results[part].append(value.flatten())
    return {part: torch.cat(results[part]) for part in PARTS}


def main() -> None:
    """Print a table; exit with 1 if a difference is above 1e-6."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=48)
    args, more = parser.parse_known_args()
    more = [f"data.batch_size={args.batch}", *more]
    cuts = CUTS | {"parts of 4": [f"trainer.accumulate_grad_batches={args.batch // 4}"]}
    table = Table("cut", *PARTS)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        before = by_part(weights(Path(folder) / "before", "optimizer.lr=0", *more))
        one = by_part(weights(Path(folder) / "one", "optimizer.lr=1", *more))
        assert all(value.dtype == torch.float64 for value in one.values())
        table.add_row("1 process: norm of the gradient", *(f"{float((before[p] - one[p]).norm()):.3g}" for p in PARTS))
        for number, (cut, overrides) in enumerate(cuts.items()):
            result = by_part(weights(Path(folder) / str(number), "optimizer.lr=1", *more, *overrides))
            apart = [float((result[p] - one[p]).abs().max()) for p in PARTS]
            table.add_row(cut, *(f"{a:.1e}" for a in apart))
            worst = max(worst, *apart)
    Console(width=120).print(table)
    sys.exit(int(worst > 1e-6))


if __name__ == "__main__":
    main()
