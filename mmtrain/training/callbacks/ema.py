"""Moving averages of weights that do not change constants, and that are sharded if the weights are.

The decay warms up: the n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, as TensorFlow's
ExponentialMovingAverage does with num_updates. A fixed decay of 0.98 would keep two thirds of the first step's weights
in the average after 20 steps, and a short run would be evaluated close to its initial weights.

Lightning's callback also averages buffers, which is right for statistics of batch norms. But a buffer that is not in
checkpoints is a constant, such as the filters of a spectrogram. 0.98 x + 0.02 x differs from x in the last bit, so the
constant would drift, and a resumed run would start from the exact one again.

Lightning's callback also copies a model that is already sharded, which FSDP2 does not allow. Here the copy is made
before, and sharded like the model. Checkpoints contain complete averages, as in any other run.
"""

from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mmtrain.annotations import Fraction
from mmtrain.training.fsdp.shard import full_state_dict, keep_shards, load_weights
from mmtrain.training.fsdp.strategy import ShardedStrategy


class EMA(WeightAveraging):
    """An exponential moving average of the weights, which is evaluated and saved.

    Args:
        decay: fraction of the average that is kept in each step, after the warmup.

    Raises:
        ValueError: if `decay` is not between 0 and 1.
    """

    def __init__(self, *, decay: Fraction) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay = {decay}; set it between 0 and 1")
        super().__init__(avg_fn=self._averaged)
        self.decay = decay
        self._kept = decay
        self._constants: list[str] = []

    def _averaged(self, average: Tensor, current: Tensor, num_updates: Tensor | int) -> Tensor:
        return self._kept * average + (1 - self._kept) * current

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model, and record which buffers are constants."""
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
        """Update the average, without constants."""
        assert self._average_model is not None
        # once per step: avg_fn is called for each tensor, and reading the number on a GPU waits for the device
        self._kept = warmup_decay(self.decay, int(self._average_model.n_averaged))
        keep_shards(pl_module)  # frozen blocks have no backward pass, which would reshard them
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        for name in self._constants:
            self._average_model.module.get_buffer(name).copy_(pl_module.get_buffer(name))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write complete averages as the weights of the checkpoint."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None:
            checkpoint["state_dict"] = full_state_dict(self._average_model.module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load each rank's shard of averages and weights."""
        if self._average_model is None or "current_model_state" not in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            return
        load_weights(self._average_model.module, checkpoint["state_dict"])
        load_weights(pl_module, checkpoint["current_model_state"])
        self._average_model.load_state_dict(checkpoint["averaging_state"], strict=False)

    def _swap_models(self, pl_module: LightningModule) -> None:
        keep_shards(pl_module)
        super()._swap_models(pl_module)

    def _copy_average_to_current(self, pl_module: LightningModule) -> None:
        keep_shards(pl_module)
        super()._copy_average_to_current(pl_module)


def warmup_decay(decay: float, num_updates: int) -> float:
    """The fraction of the average that is kept in an update.

    Args:
        decay: the fraction after the warmup.
        num_updates: number of updates before this one; the first makes the average equal to the weights.

    >>> [round(warmup_decay(0.98, n), 3) for n in (1, 10, 100, 1000)]
    [0.182, 0.55, 0.918, 0.98]
    """
    return min(decay, (1 + num_updates) / (10 + num_updates))
