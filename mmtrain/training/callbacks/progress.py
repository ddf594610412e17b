"""The progress bar: loss, samples per second, remaining time. Without a terminal: one line per epoch."""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from mmtrain.io.escape import print_escaped


class Progress(RichProgressBar):
    """Lightning's rich progress bar; in a log file or a pipe, plain lines instead."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        self._is_terminal = sys.stdout.isatty()
        self._started = 0.0
        self._first_step = 0

    @property
    def is_enabled(self) -> bool:
        """Draw only in a terminal."""
        return super().is_enabled and self._is_terminal

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics without the version number that Lightning adds."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in items.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._started, self._first_step = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print one line if there is no terminal."""
        super().on_train_epoch_end(trainer, pl_module)
        done = trainer.global_step - self._first_step
        if self._is_terminal or not trainer.is_global_zero or not done:  # not done: a resumed run ends its last epoch
            return
        to_do = trainer.estimated_stepping_batches - trainer.global_step
        left = (time.monotonic() - self._started) / done * to_do
        shown = "  ".join(f"{k} {float(v):.4g}" for k, v in trainer.progress_bar_metrics.items())
        epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"  # trainer.max_steps ends the run
        at = f"epoch {trainer.current_epoch + 1}{epochs}  step {trainer.global_step}"
        print_escaped(f"{at}  {shown}  {left:.0f} s left")
