"""hydra/launcher=ray. Hydra's own plugin for Ray requires very old packages, and imports Ray at every start."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mmtrain.annotations import NonNegativeFloat


class RayLauncher(Launcher):
    """Runs each run as a task of Ray in its own process; see configs/hydra/launcher/ray.yaml."""

    def __init__(
        self, address: str | None, num_cpus: NonNegativeFloat, num_gpus: NonNegativeFloat, init: DictConfig
    ) -> None:
        self.address = address
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = init
        self.context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Called by Hydra, or by its sweeper, with the overrides of each run."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # equal lines of two runs are both printed
        # Ray runs its workers at niceness 15, with which training on a busy machine would hardly progress
        os.environ.setdefault("RAY_worker_niceness", "0")
        import ray  # takes a second

        setup_globals()
        assert self.config is not None
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        if not ray.is_initialized():  # a sweeper may launch several times
            plain: Any = OmegaConf.to_container(self.init, resolve=True)
            ray.init(address=self.address, include_dashboard=False, logging_level="error", **plain)
        parts = (self.context, self.config, self.task_function, Singleton.get_state(), str(Path.cwd()))
        shared = ray.put(parts)
        # a worker is not reused after training, so its memory on the device is released
        task = ray.remote(max_calls=1, max_retries=0, **self.resources)(_run)
        requested = [task.remote(shared, list(o), initial_job_idx + n) for n, o in enumerate(job_overrides)]
        done: list[JobReturn] = ray.get(requested)
        return done


def _run(shared: tuple[Any, ...], overrides: list[str], number: int) -> JobReturn:
    """One run, in a worker."""
    context, config, task_function, state, folder = shared
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    own = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(own):
        own.hydra.job.id = f"{own.hydra.job.name}_{number}"
        own.hydra.job.num = number
    HydraConfig.instance().set_config(own)
    return run_job(
        hydra_context=context,
        config=own,
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
