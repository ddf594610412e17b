"""Seconds of a training step with a checkpoint every 50 steps over one without, in one run.

    python scripts/benchmark_checkpoints.py [group=option ...] [key=value ...]

Stretches of 50 steps with one checkpoint and with none take turns, so that a machine that slows down slows both; the
medians are compared, once for checkpoints that training waits for and once for those written in the background. The
checkpoints at ends of epochs are left out. Overrides are those of train.py.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmark import build, now
from omegaconf import DictConfig
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from mmtrain.build import build_data, compose
from mmtrain.data.module import DataModule
from mmtrain.training.memory import keep_freed_memory
from mmtrain.training.trainer import build_trainer

EVERY = 50
STRETCHES = 8  # half of them with a checkpoint
FIRST = EVERY // 2  # so that a checkpoint, and what it delays, lies in the midst of its stretch


class Stretches(Callback):
    """Notes when each stretch of steps begins."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """The first step of a stretch."""
        if trainer.global_step % EVERY == FIRST:
            self.began.append(now())


def seconds(cfg: DictConfig, data: DataModule) -> tuple[float, float, float]:
    """Of a step with a checkpoint every `EVERY` steps, and of one without; and the size of the checkpoint in MiB."""
    watch = Stretches()
    trainer = build_trainer(cfg, monitor="train/loss", resume_step=None, extra=[watch])
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)]
    trainer.fit(build(cfg, data), datamodule=data)
    took = [(end - begin) / EVERY for begin, end in zip(watch.began, watch.began[1:], strict=False)]
    size = (Path(cfg.run_dir) / "checkpoints" / "last.ckpt").stat().st_size / 2**20
    # the checkpoint of step 100 lies in the second stretch, 75 to 125
    return statistics.median(took[1::2]), statistics.median(took[::2]), size


def main() -> None:
    """Both ways of writing, and their ratios."""
    keep_freed_memory()
    table = Table("written", "with", "without", "ratio", "MiB", title="seconds of a step")
    for background in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            steps = FIRST + STRETCHES * EVERY + 1
            cfg = compose(
                [
                    *sys.argv[1:],
                    *(f"checkpoint.every_n_steps={2 * EVERY}", f"checkpoint.background={background}"),
                    *(f"trainer.max_steps={steps}", "trainer.max_epochs=-1", "trainer.limit_val_batches=0"),
                    f"run_dir={folder}",
                ]
            )
            data = build_data(cfg)
            data.read(Path(folder), training=True)
            slow, plain, size = seconds(cfg, data)
        how = "in the background" if background else "while training waits"
        table.add_row(how, f"{slow:.4f}", f"{plain:.4f}", f"{slow / plain:.3f}", f"{size:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
