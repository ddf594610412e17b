"""The Lightning Trainer of a run, with its callbacks and loggers."""

import inspect
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import DoublePrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mmtrain.config.instantiate import get_object, make
from mmtrain.config.rules import OWN_TRAINER_KEYS
from mmtrain.errors import ConfigError
from mmtrain.training.callbacks.interruptions import PreemptionHandler
from mmtrain.training.callbacks.model_checkpoint import ModelCheckpoint
from mmtrain.training.callbacks.profile import Profile
from mmtrain.training.callbacks.progress import Progress
from mmtrain.training.checkpoint.io import AtomicCheckpointIO
from mmtrain.training.ddp_strategy import DDP, join_by_file
from mmtrain.training.fsdp.grad_scaler import NAMES as HALF
from mmtrain.training.fsdp.grad_scaler import sharded_half_precision
from mmtrain.training.fsdp.strategy import ShardedStrategy
from mmtrain.training.loggers.csv import CSVMetrics
from mmtrain.training.precision.bf16_true import NAME as HALF_WEIGHTS
from mmtrain.training.precision.bf16_true import BF16TruePrecision
from mmtrain.units import parse_duration

SHARDED = "fsdp"  # as trainer.strategy


def build_trainer(
    cfg: DictConfig, *, monitor: str | None, resume_step: int | None, extra: Sequence[Callback] = ()
) -> Trainer:
    """Build the Lightning Trainer with its callbacks, extra callbacks and loggers."""
    torch.backends.cudnn.allow_tf32 = cfg.trainer.tf32  # torch allows it by default, but not for matrix products
    torch.set_float32_matmul_precision("high" if cfg.trainer.tf32 else "highest")
    options = trainer_options(cfg)
    callbacks = [*build_callbacks(cfg, monitor=monitor), *extra]
    if cfg.trainer.profile:
        options["profiler"] = next(callback.profiler for callback in callbacks if isinstance(callback, Profile))
    own: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": build_loggers(cfg, resume_step=resume_step),
        "plugins": [*options.pop("plugins", []), AtomicCheckpointIO(background=cfg.checkpoint.background)],
        "default_root_dir": cfg.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    }
    trainer = make_trainer({**options, **own})
    join_by_file(trainer.strategy)
    return trainer


def trainer_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the options of Lightning's Trainer, with the strategies and precisions of mmtrain."""
    if cfg.trainer.profile and "profiler" in cfg.trainer:
        raise ConfigError(
            f"trainer.profiler={cfg.trainer.profiler}: trainer.profile=true sets the profiler of the Trainer itself\n"
            "    fix: leave out trainer.profiler, or set trainer.profile=false"
        )
    options = {str(k): v for k, v in cfg.trainer.items() if k not in OWN_TRAINER_KEYS}
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if options["strategy"] == "ddp" or (options["strategy"] == "auto" and several and options["accelerator"] != "tpu"):
        options["strategy"] = DDP()
    if options["strategy"] == SHARDED:  # with FSDP2; Lightning's strategy of that name is FSDP1
        options["strategy"] = ShardedStrategy(num_ranks=int(os.environ.get("WORLD_SIZE", "1")))
    own: dict[str, Callable[[], Any]] = {HALF_WEIGHTS: BF16TruePrecision}
    if isinstance(options["strategy"], ShardedStrategy):
        own |= {name: partial(sharded_half_precision, options["accelerator"]) for name in HALF}
        own |= dict.fromkeys(("64", "64-true"), DoublePrecision)  # Lightning refuses the string with this strategy
    if str(options["precision"]) in own:
        options["plugins"] = [own[str(options.pop("precision"))]()]  # the Trainer accepts either precision or plugins
    return options


def make_trainer(options: dict[str, Any]) -> Trainer:
    """Build Lightning's Trainer.

    Raises:
        ConfigError: with Lightning's message, if it refuses an option or has no such device.
    """
    try:
        return Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        no_gpu = "gpu backend" in text or "No GPU" in text
        fix = "set trainer=cpu, or run on a machine with a GPU" if no_gpu else "change the options in trainer"
        raise ConfigError(f"trainer: {text}\n    fix: {fix}") from error


def build_callbacks(cfg: DictConfig, *, monitor: str | None) -> list[Callback]:
    """Build the callbacks of every run and of configs/callbacks. Without `monitor`, the newest is the best."""
    folder = Path(cfg.run_dir) / "checkpoints"
    places: dict[str, Any] = {"dirpath": folder, "save_top_k": 1, "enable_version_counter": False}
    # at the end of validation, so that its state is in the checkpoint that Interruptions writes at the end of the epoch
    best = ModelCheckpoint(
        filename="best", monitor=monitor, mode=cfg.checkpoint.mode, save_on_train_epoch_end=monitor is None, **places
    )
    # Lightning's own save_last only follows a new best
    last = ModelCheckpoint(filename="last", monitor=None, save_on_train_epoch_end=True, **places)
    own = [make(node, f"callbacks.{name}") for name, node in cfg.callbacks.items()]
    interruptions = PreemptionHandler(
        cfg.run_dir,
        every_n_steps=cfg.checkpoint.every_n_steps,
        every_minutes=cfg.checkpoint.every_minutes,
        max_time=parse_duration(cfg.trainer.max_time),
    )
    own += [Profile(cfg.run_dir)] if cfg.trainer.profile else []
    return [*own, *_pruning(cfg, monitor), best, last, interruptions, Progress()]


def _pruning(cfg: DictConfig, monitor: str | None) -> list[Callback]:
    """The callback that ends a poor trial of Optuna early."""
    if cfg.trial is None:
        return []
    from mmtrain.training.callbacks.pruning import Pruning  # Optuna is an extra

    pruner = make(cfg.trial.pruner, "hydra.sweeper.pruner")
    return [Pruning(folder=cfg.trial.folder, number=cfg.trial.number, pruner=pruner, monitor=monitor)]


def build_loggers(cfg: DictConfig, *, resume_step: int | None) -> list[Logger]:
    """Build the csv logger and those of the configuration. A logger with an argument `resume_step` gets that step."""
    others = []
    for name, node in cfg.logger.items():
        if name == "csv":
            continue
        names = inspect.signature(get_object(node._target_)).parameters
        facts = {"resume_step": resume_step if cfg.mode == "fit" else None} if "resume_step" in names else {}
        others.append(make(node, f"logger.{name}", **facts))
    return [CSVMetrics(cfg.run_dir, resume_step=resume_step), *others]
