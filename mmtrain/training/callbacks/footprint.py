"""Memory of training: the peak of its first steps, without what was in use before the model was built."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mmtrain.training.memory import Peak, resident

NUM_STEPS = 20  # number of observed steps; later ones need as much, except for longer sequences


class PeakMemoryMonitor(Callback):
    """Measures the peak of memory. It must be created before the model.

    Attributes:
        peak: bytes; None if the system does not report them or nothing was trained.
    """

    def __init__(self) -> None:
        self.peak: int | None = None
        self._before = resident()
        self._watch: Peak | None = None
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the peak of loading the weights."""
        self._watch = Peak(torch.device(pl_module.device), self._before)
        self._watch.reset()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after each of the first steps."""
        self._seen += 1
        if self._watch is not None and self._seen <= NUM_STEPS:
            self.peak = self._watch.value()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop measuring, because evaluation is not part of training."""
        self._watch = None
