"""Checkpoints as files: which one to take, whether it is one, whether it fits."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtrain.errors import ConfigError

_MEND = "name another, such as RUN/checkpoints/last.ckpt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project; loading runs no code.

    Raises:
        ConfigError: when there is no such file or it is not one.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist\n    {_MEND}")
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is not a checkpoint, or only a part of one\n    {_MEND}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors and plain values; to load that could run code\n    {_MEND}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ConfigError(f"{path} is not a checkpoint that can be read: {reason}\n    {_MEND}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "mmtrain" not in checkpoint:
        raise ConfigError(f"{path} is not a checkpoint of mmtrain\n    {_MEND}")
    return checkpoint


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The whole checkpoint of a run folder that got furthest, for `resume=auto`; one that a kill cut short is not."""
    steps: dict[Path, int] = {}
    for path in sorted((run_dir / "checkpoints").glob("*.ckpt"), key=lambda p: p.name == "last.ckpt"):
        try:
            steps[path] = load_checkpoint(path)["global_step"]
        except ConfigError:
            continue
    # of several at one step it is last.ckpt, which is written when the step and its validation are done
    return max(reversed(steps), key=lambda p: steps[p], default=None)


def best_checkpoint(run_dir: Path) -> Path:
    """The best checkpoint of a run folder, or its last.

    Raises:
        ConfigError: when it has none.
    """
    for name in ("best.ckpt", "last.ckpt"):
        if (path := run_dir / "checkpoints" / name).exists():
            return path
    raise ConfigError(
        f"{run_dir} holds no checkpoint\n    set run_dir to the folder of a training run, or init_from to a checkpoint"
    )


def check_same_model(checkpoint: dict[str, Any], module: nn.Module, path: Path) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        ConfigError: with what differs and the command that made the checkpoint.
    """
    mine, theirs = module.state_dict(), checkpoint["state_dict"]
    faults = [f"{n} is not in the checkpoint" for n in mine if n not in theirs]
    faults += [f"{n} is not in this model" for n in theirs if n not in mine]
    faults += [
        f"{n} is {tuple(theirs[n].shape)} there and {tuple(t.shape)} here"
        for n, t in mine.items()
        if n in theirs and theirs[n].shape != t.shape
    ]
    if faults:
        shown = "\n".join(f"    {fault}" for fault in faults[:4])
        more = f"\n    ... and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ConfigError(
            f"{path} is of another model\n{shown}{more}\n    it was made by: {checkpoint['mmtrain']['command']}\n"
            "    repeat those overrides, or take its weights with init_from"
        )


def check_same_run(checkpoint: dict[str, Any], facts: dict[str, Any], path: Path) -> None:
    """Refuse to go on with another order of the data.

    Raises:
        ConfigError: with each value that differs.
    """
    before = checkpoint["mmtrain"]["facts"]
    faults = [f"    {key} was {before[key]} and is {value} now" for key, value in facts.items() if before[key] != value]
    if faults:
        lines = "\n".join(faults)
        raise ConfigError(
            f"{path} cannot go on exactly\n{lines}\n    set what differs back, or start a new run with init_from={path}"
        )
