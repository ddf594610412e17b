"""Ends a run of a sweep that is behind what others had reached after as much of theirs."""

from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from mmtrain.distributed import is_main, total
from mmtrain.training.callbacks.interruptions import Stopped
from mmtrain.training.sweep.study import NAME, storage_of

PARTS = 1000  # of a run: what validations of runs with other batch sizes are compared by


class Pruned(Stopped):
    """The sweep gave this run up."""

    outcome = "pruned"


class Pruning(Callback):
    """Tells the study of a sweep what each validation came to, and leaves when Optuna says so.

    Args:
        folder: of the sweep.
        number: of the trial.
        pruner: of Optuna.
        monitor: the metric that is told.
    """

    def __init__(
        self, *, folder: str | Path, number: int, pruner: optuna.pruners.BasePruner, monitor: str | None
    ) -> None:
        self.folder = Path(folder)
        self.number = number
        self.pruner = pruner
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first rank asks, and all hear of it."""
        if trainer.state.fn != TrainerFn.FITTING or self.monitor is None:
            return
        part = PARTS * trainer.global_step // max(1, int(trainer.estimated_stepping_batches))
        value = float(trainer.callback_metrics[self.monitor])
        is_behind = is_main() and part < PARTS and self._is_behind(value, part)
        if total(torch.tensor(float(is_behind), device=trainer.strategy.root_device)) > 0:
            said = f"pruned at step {trainer.global_step}: {self.monitor} = {value:.4f} is behind other runs"
            raise Pruned(said, 0)

    def _is_behind(self, value: float, part: int) -> bool:
        study: Any = optuna.load_study(study_name=NAME, storage=storage_of(self.folder), pruner=self.pruner)
        frozen = study.get_trials(deepcopy=False)[self.number]
        if frozen.state is not TrialState.RUNNING:
            return False
        trial = OptunaTrial(study, frozen._trial_id)
        if part not in frozen.intermediate_values:  # a run that goes on says some of them again
            trial.report(value, part)
        return trial.should_prune()
