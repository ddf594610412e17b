"""LitModels around the models of tests/batches.py, and trainers that leave nothing on the disk."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from mmtrain.balance.fixed import Fixed
from mmtrain.training.lit_module import LitModel
from mmtrain.training.optim.schedules import constant
from mmtrain.types import Batch
from tests.batches import make_model


def make_lit(*, tasks: Sequence[str] = ("classification",), **changed: Any) -> LitModel:
    """Plain gradient descent on a float64 model without dropout; each task weighs more than the one before."""
    parts: dict[str, Any] = {
        "model": make_model(tasks=tasks),
        "balance": Fixed(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "schedule": partial(constant, warmup_ratio=0.0),
        "seed": 0,
        "gradient_clip_val": None,
        "log_every_n_steps": 1,
        "test_subsets": [],
        "tunings": {},
    }
    lit = LitModel(**parts | changed)
    for n, task in enumerate(lit.tasks.values()):
        task.weight = 1.0 + n / 2
    return lit


def make_trainer(folder: Path, **options: Any) -> Trainer:
    """On the CPU, without checkpoints."""
    plain: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    plain |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", default_root_dir=folder, **plain | options)


def loader(windows: Sequence[list[Batch]]) -> DataLoader[Any]:
    """Each of these lists of micro-batches as one step."""
    return DataLoader(list(windows), batch_size=None)
