"""hydra/sweeper=optuna. Hydra finds sweepers only in this package, and imports all of it at every start."""

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mmtrain.annotations import PositiveInt


class OptunaSweeper(Sweeper):
    """Runs that Optuna chooses; see configs/hydra/sweeper/optuna.yaml and `mmtrain.cli.sweeps.trials`."""

    def __init__(
        self,
        n_trials: PositiveInt,
        n_jobs: PositiveInt,
        sampler: Any,
        pruner: Any,
        objectives: Mapping[str, str],
        params: Mapping[str, Any] | None,
    ) -> None:
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.sampler = sampler
        self.pruner = pruner
        self.objectives = objectives
        self.params = params or {}
        self.launcher: Launcher | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra with the overrides of the command line."""
        from mmtrain.cli.sweeps.trials import Search  # Optuna takes a second to import

        assert self.config is not None
        assert self.launcher is not None
        Search(
            config=self.config,
            launcher=self.launcher,
            sampler=self.sampler,
            pruner=self.pruner,
            objectives=dict(self.objectives),
        ).run([*(f"{key}={value}" for key, value in self.params.items()), *arguments], self.n_trials, self.n_jobs)
