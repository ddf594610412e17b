"""SIGTERM: finish the step, write last.ckpt, leave. Clusters send it before they kill."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from mmtrain.distributed import total


class Stopped(Exception):
    """Training left early, with a checkpoint written."""


class StopOnSignal(Checkpoint):  # Lightning lets checkpoints come last: best.ckpt is written before this leaves
    """Notes SIGTERM and leaves at the next point where a checkpoint is exact.

    That is the end of a step, after the validation that follows it if one does; for the last step of an epoch it is the
    end of the epoch.

    Args:
        path: the checkpoint to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.noted = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal over from Lightning, which would leave without a checkpoint."""
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.noted = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Leave, unless the epoch ends with this step or a validation follows it."""
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not loop._is_training_done and not loop._should_check_val_fx(fetcher):
            self._leave_if_noted(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave after a validation in the midst of an epoch."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.fit_loop.epoch_loop._is_training_done:
            self._leave_if_noted(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs."""
        self._leave_if_noted(trainer)

    def _leave_if_noted(self, trainer: Trainer) -> None:
        # any rank may have got the signal; all must leave at the same step
        if total(torch.tensor(float(self.noted), device=trainer.strategy.root_device)) > 0:
            trainer.save_checkpoint(self.path)
            raise Stopped(f"stopped by SIGTERM at step {trainer.global_step}; {self.path} is written")
