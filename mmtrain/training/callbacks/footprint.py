"""How much memory training takes: the most that its first steps had in use, over what there was before the model."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mmtrain.training.memory import Peak, resident

NUM_STEPS = 20  # that are looked at; the first takes what the later ones take, but for longer sequences


class Footprint(Callback):
    """Notes the peak; to be made before the model is.

    Attributes:
        peak: bytes, None where the system does not tell or nothing was trained.
    """

    def __init__(self) -> None:
        self.peak: int | None = None
        self._before = resident()
        self._watch: Peak | None = None
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what loading the weights took."""
        self._watch = Peak(torch.device(pl_module.device), self._before)
        self._watch.reset()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after each of the first steps."""
        self._seen += 1
        if self._watch is not None and self._seen <= NUM_STEPS:
            self.peak = self._watch.value()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What evaluation takes is another question."""
        self._watch = None
