"""Averages of weights that leave constants alone.

Lightning's callback averages buffers too, as statistics of batch norms should be. But a buffer that is no part of a
checkpoint is a constant, such as the filters of a spectrogram, and 0.98 x + 0.02 x is not x to the last bit: in time it
drifts, and a run that goes on starts from the exact one again.
"""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """An exponential moving average of weights, with which the model is evaluated and kept.

    Args:
        decay: how much of the average stays from step to step.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__(decay=decay)
        self._constants: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note which buffers are constants."""
        super().setup(trainer, pl_module, stage)
        kept = pl_module.state_dict().keys()
        self._constants = [name for name, _ in pl_module.named_buffers() if name not in kept]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, but for constants."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        assert self._average_model is not None
        for name in self._constants:
            self._average_model.module.get_buffer(name).copy_(pl_module.get_buffer(name))
