"""Seconds of a training step with a checkpoint every 50 steps relative to one without, in one run.

    python scripts/benchmark_checkpoints.py [group=option ...] [key=value ...]

Intervals of 50 steps with one checkpoint and with none alternate, so a slower machine affects both. The medians are
compared, once for checkpoints that training waits for, and once for those written in the background. Checkpoints at the
end of epochs are disabled. Overrides are those of train.py.
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
from mmtrain.training.memory import tune_malloc
from mmtrain.training.trainer import build_trainer

EVERY = 50
STRETCHES = 8  # half of them with a checkpoint
FIRST = EVERY // 2  # so a checkpoint and its delay are in the middle of its interval


class Stretches(Callback):
    """Records the start time of each interval."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Record the first step of an interval."""
        if trainer.global_step % EVERY == FIRST:
            self.began.append(now())


def seconds(cfg: DictConfig, data: DataModule) -> tuple[float, float, float]:
    """Seconds of a step with a checkpoint every `EVERY` steps, and of one without; and the checkpoint's size in MiB."""
    watch = Stretches()
    trainer = build_trainer(cfg, monitor="train/loss", resume_step=None, extra=[watch])
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)]
    trainer.fit(build(cfg, data), datamodule=data)
    took = [(end - begin) / EVERY for begin, end in zip(watch.began, watch.began[1:], strict=False)]
    size = (Path(cfg.run_dir) / "checkpoints" / "last.ckpt").stat().st_size / 2**20
    # the checkpoint of step 100 is in the second interval, 75 to 125
    return statistics.median(took[1::2]), statistics.median(took[::2]), size


def main() -> None:
    """Measure both ways of writing, and print their ratios."""
    tune_malloc()
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
