"""Averages of weights that leave constants alone, and that ranks keep shares of where they keep shares of weights.

Lightning's callback averages buffers too, as statistics of batch norms should be. But a buffer that is no part of a
checkpoint is a constant, such as the filters of a spectrogram, and 0.98 x + 0.02 x is not x to the last bit: in time it
drifts, and a run that goes on starts from the exact one again.

It also copies a model whose weights are shared out already, which FSDP2 does not allow. Here the copy is taken before,
and shared out as the model is; checkpoints hold whole averages, as those of any other run.
"""

from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel

from mmtrain.sharded_strategy import ShardedStrategy
from mmtrain.sharding import keep_shares, load_weights, whole_weights


class EMA(EMAWeightAveraging):
    """An exponential moving average of weights, with which the model is evaluated and kept.

    Args:
        decay: how much of the average stays from step to step.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__(decay=decay)
        self._constants: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model, and note which buffers are constants."""
        kept = pl_module.state_dict().keys()
        self._constants = [name for name, _ in pl_module.named_buffers() if name not in kept]
        if stage != "fit" or not isinstance(trainer.strategy, ShardedStrategy):
            super().setup(trainer, pl_module, stage)
            return
        self._average_model = AveragedModel(model=pl_module, use_buffers=self._use_buffers, **self._kwargs)
        self._average_model.to(trainer.strategy.root_device)
        copy = cast(LightningModule, self._average_model.module)
        copy.trainer = trainer
        copy.configure_model()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, but for constants."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        assert self._average_model is not None
        for name in self._constants:
            self._average_model.module.get_buffer(name).copy_(pl_module.get_buffer(name))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Whole averages are the weights of the checkpoint."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None:
            checkpoint["state_dict"] = whole_weights(self._average_model.module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Each rank takes its share of averages and weights."""
        if self._average_model is None or "current_model_state" not in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            return
        load_weights(self._average_model.module, checkpoint["state_dict"])
        load_weights(pl_module, checkpoint["current_model_state"])
        self._average_model.load_state_dict(checkpoint["averaging_state"], strict=False)

    def _swap_models(self, pl_module: LightningModule) -> None:
        keep_shares(pl_module)
        super()._swap_models(pl_module)

    def _copy_average_to_current(self, pl_module: LightningModule) -> None:
        keep_shares(pl_module)
        super()._copy_average_to_current(pl_module)
