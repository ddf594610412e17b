"""Checkpoints as files: which one to take, whether it is one, whether it fits."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import nn

import mmtrain
from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.io import NO_MANIFEST, broken
from mmtrain.training.checkpoint.safetensors import SUFFIX, read_weights

WEIGHTS = f"best{SUFFIX}"  # of the best checkpoint, beside it
_MEND = "name another, such as RUN/checkpoints/last.ckpt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project, or its weights alone, if it is whole; loading runs no code.

    Raises:
        ConfigError: when there is no such file, it is not one, not whole, or of a newer version.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist\n    {_MEND}")
    checkpoint = _read_weights(path) if path.suffix == SUFFIX else _read_archive(path)
    written_by = _version(checkpoint["mmtrain"], path)
    if written_by > Version(mmtrain.__version__):
        raise ConfigError(
            f"{path} was written by mmtrain {written_by}, and this is {mmtrain.__version__}\n"
            f"    install mmtrain {written_by} or newer"
        )
    return checkpoint


def _version(record: Any, path: Path) -> Version:
    said = record.get("version") if isinstance(record, dict) else None
    try:
        return Version(said if isinstance(said, str) else "")
    except ValueError as error:
        what = f"its record says that mmtrain {str(said)[:40]!r} wrote it, which is no version"
        raise ConfigError(f"{path} is not a checkpoint of mmtrain: {what}\n    {_MEND}") from error


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return read_weights(path)
    except ValueError as error:
        raise ConfigError(f"{path} is not whole: {error}\n    {_MEND}") from error


def _read_archive(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is not a checkpoint, or only a part of one\n    {_MEND}")
    why = broken(path)
    if why not in (None, NO_MANIFEST):
        raise ConfigError(f"{path} is not whole: {why}\n    {_MEND}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors and plain values; to load that could run code\n    {_MEND}"
        ) from error
    except (RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise ConfigError(f"{path} is not a checkpoint that can be read: {reason}\n    {_MEND}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "mmtrain" not in checkpoint:
        raise ConfigError(f"{path} is not a checkpoint of mmtrain\n    {_MEND}")
    if why is not None:
        raise ConfigError(f"{path} is not whole: {why}\n    {_MEND}")
    return checkpoint


@dataclass(frozen=True)
class Newest:
    """What `resume=auto` finds.

    Attributes:
        path: the whole checkpoint that got furthest; None when there is none.
        passed_over: why others were not taken, a line each.
    """

    path: Path | None
    passed_over: list[str]


def newest_checkpoint(run_dir: Path) -> Newest:
    """The whole checkpoint of a run folder that got furthest; one that is damaged is passed over and named."""
    steps: dict[Path, int] = {}
    passed_over = []
    for path in sorted((run_dir / "checkpoints").glob("*.ckpt"), key=lambda p: p.name == "last.ckpt"):
        try:
            steps[path] = load_checkpoint(path)["global_step"]
        except ConfigError as error:
            passed_over.append(f"passed over: {str(error).splitlines()[0]}")
    # of several at one step it is last.ckpt, which is written when the step and its validation are done
    return Newest(max(reversed(steps), key=lambda p: steps[p], default=None), passed_over)


def newest_in_words(run_dir: Path) -> str:
    """Which checkpoint a run that has diverged can go on from."""
    path = newest_checkpoint(run_dir).path
    return "no checkpoint was written before" if path is None else f"{path} is the last good checkpoint"


def best_checkpoint(run_dir: Path) -> Path:
    """The best checkpoint of a run folder, or its last, or the weights that are left of it.

    Raises:
        ConfigError: when it has none.
    """
    for name in ("best.ckpt", "last.ckpt", WEIGHTS):
        if (path := run_dir / "checkpoints" / name).exists():
            return path
    raise ConfigError(
        f"{run_dir} holds no checkpoint\n    set run_dir to the folder of a training run, or init_from to a checkpoint"
    )


def check_same_names(checkpoint: dict[str, Any], names: Mapping[str, Sequence[str]], path: Path) -> None:
    """Refuse a checkpoint whose numbers stand for other tokens or classes than those of this run.

    Args:
        checkpoint: of a run.
        names: `DataModule.names` of this run.
        path: of the checkpoint.

    Raises:
        ConfigError: with the first name that differs.
    """
    before = checkpoint["mmtrain"].get("names", {})  # earlier versions wrote none
    for key, now in names.items():
        theirs = before.get(key, now)
        if list(theirs) != list(now):
            first = next((i for i, (a, b) in enumerate(zip(theirs, now, strict=False)) if a != b), len(now))
            mine, its = (repr(one[first]) if first < len(one) else "nothing" for one in (now, theirs))
            raise ConfigError(
                f"{path} was trained with another vocabulary of data.{key}: {len(theirs)} names there, {len(now)} here;"
                f" number {first} is {its} there and {mine} here\n"
                "    fix: restore the vocabulary of its run folder (tokenizer.json, .vocabulary.json ...), or learn"
                " from the training split that it was trained on"
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
