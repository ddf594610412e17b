"""Samples per second of train.py's training loop relative to a plain PyTorch loop: same model, data, loader, process.

    python scripts/benchmark.py [group=option ...] [key=value ...]

The two alternate, so a slower machine affects both. Overrides are those of train.py. With trainer=gpu the plain loop
has the same device and precision.
"""

import statistics
import sys
import tempfile
import time
from itertools import chain, repeat
from pathlib import Path

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback
from rich.console import Console
from rich.table import Table

from mmtrain.build import build_data, build_lit, build_model, compose
from mmtrain.data.dataset import Collate, TrainSplit
from mmtrain.data.loader import TrainSteps, make_loader
from mmtrain.data.module import DataModule
from mmtrain.training.lit_module import LitModel
from mmtrain.training.memory import tune_malloc
from mmtrain.training.trainer import build_trainer

ROUNDS = 3
WARMUP_STEPS = 3
STEPS = 20


class Stopwatch:
    """Samples per second of the steps after the warm-up.

    The first step of an epoch is not counted. Both loops start their loader there, and the framework ends the previous
    epoch, which is not part of the training loop.
    """

    def __init__(self) -> None:
        self.steps = self.rows = 0
        self.seconds = 0.0
        self._last: float | None = None

    def start_epoch(self) -> None:
        """The next step is the first of an epoch."""
        self._last = None

    def end_step(self, rows: int) -> None:
        """Record the end of a step with this number of rows."""
        time_now = now()
        self.steps += 1
        if self.steps > WARMUP_STEPS and self._last is not None:
            self.rows += rows
            self.seconds += time_now - self._last
        self._last = time_now

    def samples_per_second(self) -> float:
        """Mean speed.

        Raises:
            RuntimeError: if a loop ended early, so nothing can be compared.
        """
        if self.steps < WARMUP_STEPS + STEPS or self.rows == 0:
            raise RuntimeError(f"{self.steps} of {WARMUP_STEPS + STEPS} steps were taken, {self.rows} rows counted")
        return self.rows / self.seconds


class StepTimer(Callback):
    """Reports the steps of a Trainer to a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Report the start of an epoch."""
        self.watch.start_epoch()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Report the end of a step, whose batch is a list of micro-batches."""
        self.watch.end_step(sum(len(part) for part in batch))


def now() -> float:
    """Seconds, after a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def build(cfg: DictConfig, data: DataModule) -> LitModel:
    """Build the same model each time."""
    torch.manual_seed(cfg.seed)
    return build_lit(cfg, build_model(cfg, data))


def with_framework(cfg: DictConfig, data: DataModule) -> float:
    """Samples per second of train.py, with loggers, callbacks and progress bar."""
    lit = build(cfg, data)
    watch = Stopwatch()
    trainer = build_trainer(cfg, monitor="train/loss", resume_step=None, extra=[StepTimer(watch)])
    trainer.fit(lit, datamodule=data)
    return watch.samples_per_second()


def with_plain_loop(cfg: DictConfig, data: DataModule) -> float:
    """Samples per second of a hand-written loop."""
    on_gpu = cfg.trainer.accelerator in ("gpu", "cuda")
    device = torch.device("cuda" if on_gpu else "cpu")
    lit = build(cfg, data)
    model = lit.model.train().to(device)
    optimizer = lit.make_optimizer([{"params": list(model.parameters())}])
    split = TrainSplit(data.tables["train"], **data.parts())
    steps = TrainSteps(num_samples=len(split), batch_size=cfg.data.batch_size)
    collate = Collate(inputs=data.inputs, targets=data.targets)
    loader = make_loader(split, steps, collate, num_workers=cfg.data.num_workers, pin_memory=on_gpu)
    watch = Stopwatch()
    for number, [batch] in chain.from_iterable(map(enumerate, repeat(loader))):
        if number == 0:
            watch.start_epoch()
        with torch.autocast(device.type, torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed"):
            sums = model.losses(batch.to(device, non_blocking=True))
            losses = {name: total / count.clamp(min=1) for name, (total, count) in sums.items()}
            loss = sum(model.tasks[name].weight * value for name, value in losses.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.trainer.gradient_clip_val)
        optimizer.step()
        watch.end_step(len(batch))
        if watch.steps == WARMUP_STEPS + STEPS:
            break
    return watch.samples_per_second()


def measure(overrides: list[str], rounds: int) -> list[tuple[float, float]]:
    """Samples per second of train.py and of the plain loop, by round."""
    with tempfile.TemporaryDirectory() as folder:
        length = [
            f"trainer.max_steps={WARMUP_STEPS + STEPS}",
            f"trainer.max_epochs={WARMUP_STEPS + STEPS}",
            "trainer.limit_val_batches=0",
        ]
        cfg = compose([*overrides, *length, f"run_dir={folder}"])
        data = build_data(cfg)
        data.read(Path(folder), training=True)
        return [(with_framework(cfg, data), with_plain_loop(cfg, data)) for _ in range(rounds)]


def main() -> None:
    """Run both alternately, and print the medians and their ratio."""
    tune_malloc()  # as in a run; both loops are in this process
    rows = measure(sys.argv[1:], ROUNDS)
    table = Table("round", "train.py", "plain loop", "ratio", title="samples per second")
    for number, (ours, plain) in enumerate(rows, start=1):
        table.add_row(str(number), f"{ours:.1f}", f"{plain:.1f}", f"{ours / plain:.3f}")
    ours, plain, ratio = (statistics.median(column) for column in zip(*((o, p, o / p) for o, p in rows), strict=True))
    table.add_section()
    table.add_row("median", f"{ours:.1f}", f"{plain:.1f}", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
