"""Ends a run of a sweep whose metric is worse than that of other runs at the same progress."""

from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from mmtrain.distributed import all_reduce_sum, is_main
from mmtrain.training.callbacks.interruptions import Stopped
from mmtrain.training.sweep.study import NAME, storage_of

PARTS = 1000  # units of progress, by which validations of runs with other batch sizes are compared


class Pruned(Stopped):
    """The sweep pruned this run."""

    outcome = "pruned"


class Pruning(Callback):
    """Reports each validation to the study of a sweep, and stops if Optuna decides to prune.

    Args:
        folder: folder of the sweep.
        number: number of the trial.
        pruner: pruner of Optuna.
        monitor: the reported metric.
    """

    def __init__(
        self, *, folder: str | Path, number: int, pruner: optuna.pruners.BasePruner, monitor: str | None
    ) -> None:
        self.folder = Path(folder)
        self.number = number
        self.pruner = pruner
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report on the first rank, and send the decision to all ranks."""
        if trainer.state.fn != TrainerFn.FITTING or self.monitor is None:
            return
        part = PARTS * trainer.global_step // max(1, int(trainer.estimated_stepping_batches))
        value = float(trainer.callback_metrics[self.monitor])
        is_behind = is_main() and part < PARTS and self._is_behind(value, part)
        if all_reduce_sum(torch.tensor(float(is_behind), device=trainer.strategy.root_device)) > 0:
            message = f"pruned at step {trainer.global_step}: {self.monitor} = {value:.4f} is worse than in other runs"
            raise Pruned(message, 0)

    def _is_behind(self, value: float, part: int) -> bool:
        study: Any = optuna.load_study(study_name=NAME, storage=storage_of(self.folder), pruner=self.pruner)
        frozen = study.get_trials(deepcopy=False)[self.number]
        if frozen.state is not TrialState.RUNNING:
            return False
        trial = OptunaTrial(study, frozen._trial_id)
        if part not in frozen.intermediate_values:  # a resumed run reports some of them again
            trial.report(value, part)
        return trial.should_prune()
