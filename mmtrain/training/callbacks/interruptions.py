"""Checkpoints on request, and stopping with a checkpoint: by step, time, signal or file.

last.ckpt is written and training continues: after `checkpoint.every_n_steps` and `checkpoint.every_minutes`, on
SIGUSR1, and if a file `checkpoint_now` appears in the run folder. It is written and training ends: on SIGTERM, on
Ctrl-C (a second one ends it immediately), after `trainer.max_time`, and on SIGUSR1 in a SLURM job, which is requeued.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from mmtrain.distributed import all_reduce_sum, is_main
from mmtrain.training.checkpoint.io import AtomicCheckpointIO

REQUEST_FILE = "checkpoint_now"  # a file of this name in the run folder requests a checkpoint


class StopReason(IntEnum):
    """Reasons, the most urgent last. The value is the position in the tensor that is summed over ranks."""

    MINUTES = 0
    FILE = 1
    SIGUSR1 = 2
    REQUEUE = 3
    MAX_TIME = 4
    CTRL_C = 5
    SIGTERM = 6


# For each reason that ends training: its description, and the exit status.
ENDS = {
    StopReason.REQUEUE: ("requeued", 143),
    StopReason.MAX_TIME: ("stopped by trainer.max_time", 0),
    StopReason.CTRL_C: ("stopped by Ctrl-C", 130),
    StopReason.SIGTERM: ("stopped by SIGTERM", 143),
}


class Stopped(BaseException):
    """Training was stopped early. It is not an Exception, so `except Exception` does not catch it.

    Args:
        message: message for the user.
        status: exit status.
    """

    outcome = "stopped"  # the status in summary.json

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PreemptionHandler(Checkpoint):  # Lightning runs checkpoints last: best.ckpt is already written
    """Writes last.ckpt, and stops if requested, at the next point where a checkpoint is exact.

    That is the end of a step, after the validation that follows it, if there is one. For the last step of an epoch it
    is the end of the epoch, which has its own checkpoint. All ranks do so at the same step, even if only one got a
    signal.

    Args:
        folder: run folder.
        every_n_steps: steps between checkpoints; None for no such checkpoints.
        every_minutes: minutes between checkpoints; None for no such checkpoints.
        max_time: duration after which this process stops training; None for no limit.
        clock: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_n_steps: int | None,
        every_minutes: float | None,
        max_time: timedelta | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "checkpoints" / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.max_time = max_time
        self.clock = clock
        self.asked: set[StopReason] = set()
        self._began = self._saved = 0.0
        self._is_due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers, which would stop without a checkpoint."""
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGUSR1, self._note)
        signal.signal(signal.SIGINT, self._note)
        self._began = self._saved = self.clock()
        self._is_due = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM:
            self.asked.add(StopReason.SIGTERM)
        elif signum == signal.SIGUSR1:
            self.asked.add(StopReason.REQUEUE if _slurm_job() else StopReason.SIGUSR1)
        elif StopReason.CTRL_C in self.asked:
            # not KeyboardInterrupt: Lightning would exit with status 1
            raise Stopped("stopped by Ctrl-C during a step", ENDS[StopReason.CTRL_C][1])
        else:
            self.asked.add(StopReason.CTRL_C)
            if is_main():
                # os.write, because the signal may arrive while print writes a line
                os.write(2, b"\nCtrl-C: stopping after this step with a checkpoint; press again to stop immediately\n")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save or stop, unless the epoch ends with this step or a validation follows it."""
        self._is_due |= self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not loop._is_training_done and not loop._should_check_val_fx(fetcher):
            self._handle_requests(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same after a validation within an epoch."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.fit_loop.epoch_loop._is_training_done:
            self._handle_requests(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same between two epochs. The end of an epoch already has its checkpoint."""
        self._is_due, self._saved = False, self.clock()
        self._handle_requests(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore signal handlers. Lightning restores that of SIGTERM."""
        _give_back()

    def _handle_requests(self, trainer: Trainer) -> None:
        self._poll_requests()
        mine = [float(why in self.asked) for why in StopReason]
        counts = all_reduce_sum(torch.tensor(mine, device=trainer.strategy.root_device)).tolist()
        requested = {why for why, count in zip(StopReason, counts, strict=True) if count > 0}
        if not requested and not self._is_due:
            return
        self.asked, self._is_due = set(), False
        trainer.save_checkpoint(self.path)
        self._saved = self.clock()
        if StopReason.FILE in requested and trainer.is_global_zero:
            (self.folder / REQUEST_FILE).unlink(missing_ok=True)
        ends = [why for why in requested if why in ENDS]
        if ends:
            self._leave(trainer, max(ends))

    def _poll_requests(self) -> None:
        """Requests without a signal. The first rank checks, and all ranks get the result."""
        if not is_main():
            return
        if self.every_minutes is not None and self.clock() - self._saved >= 60 * self.every_minutes:
            self.asked.add(StopReason.MINUTES)
        if self.max_time is not None and self.clock() - self._began >= self.max_time.total_seconds():
            self.asked.add(StopReason.MAX_TIME)
        if (self.folder / REQUEST_FILE).exists():
            self.asked.add(StopReason.FILE)

    def _leave(self, trainer: Trainer, why: StopReason) -> None:
        checkpoints = trainer.strategy.checkpoint_io
        if isinstance(checkpoints, AtomicCheckpointIO):
            checkpoints.wait()
        _give_back()
        message, status = ENDS[why]
        if why is StopReason.REQUEUE and trainer.is_global_zero:
            message = _requeue(os.environ)
        raise Stopped(f"{message} at step {trainer.global_step}; {self.path} is written", status)


def _give_back() -> None:
    """Restore the default handler of Ctrl-C, and ignore SIGUSR1, which has no effect outside of training."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _slurm_job() -> bool:
    return "SLURM_JOB_ID" in os.environ and shutil.which("scontrol") is not None


def _requeue(environment: Mapping[str, str]) -> str:
    """Request SLURM to requeue this job, and return a description of the result."""
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return f"job {job} is requeued"
    return f"job {job} could not be requeued ({done.stderr.strip()[:100]}); stopped by SIGUSR1"
