"""Checkpoints as files: which one to use, whether it is valid, whether it fits the model."""

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
from mmtrain.training.checkpoint.io import NO_MANIFEST, corruption_reason
from mmtrain.training.checkpoint.safetensors import SUFFIX, read_weights

WEIGHTS = f"best{SUFFIX}"  # weights of the best checkpoint, next to it
_MEND = "fix: name another checkpoint, such as RUN/checkpoints/last.ckpt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of mmtrain, or its weights only. Loading runs no code.

    Raises:
        ConfigError: if the file does not exist, is not a checkpoint, is damaged, or was written by a newer version.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: does not exist\n    {_MEND}")
    checkpoint = _read_weights(path) if path.suffix == SUFFIX else _read_archive(path)
    written_by = _version(checkpoint["mmtrain"], path)
    if written_by > Version(mmtrain.__version__):
        raise ConfigError(
            f"{path}: written by mmtrain {written_by}, but this is {mmtrain.__version__}\n"
            f"    fix: install mmtrain {written_by} or newer"
        )
    return checkpoint


def _version(record: Any, path: Path) -> Version:
    version = record.get("version") if isinstance(record, dict) else None
    try:
        return Version(version if isinstance(version, str) else "")
    except ValueError as error:
        what = f"its version {str(version)[:40]!r} is not a version"
        raise ConfigError(f"{path}: not a checkpoint of mmtrain: {what}\n    {_MEND}") from error


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return read_weights(path)
    except ValueError as error:
        raise ConfigError(f"{path}: damaged: {error}\n    {_MEND}") from error


def _read_archive(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path}: not a checkpoint, or an incomplete one\n    {_MEND}")
    why = corruption_reason(path)
    if why not in (None, NO_MANIFEST):
        raise ConfigError(f"{path}: damaged: {why}\n    {_MEND}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: contains more than tensors and plain values, which could run code when it is loaded\n    {_MEND}"
        ) from error
    except (RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise ConfigError(f"{path}: cannot be read as a checkpoint: {reason}\n    {_MEND}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "mmtrain" not in checkpoint:
        raise ConfigError(f"{path}: not a checkpoint of mmtrain\n    {_MEND}")
    if why is not None:
        raise ConfigError(f"{path}: damaged: {why}\n    {_MEND}")
    return checkpoint


@dataclass(frozen=True)
class NewestCheckpoint:
    """The result of `resume=auto`.

    Attributes:
        path: the valid checkpoint with the most steps; None if there is none.
        rejected: why others were skipped, one line each.
    """

    path: Path | None
    rejected: list[str]


def newest_checkpoint(run_dir: Path) -> NewestCheckpoint:
    """Find the valid checkpoint of a run folder with the most steps. Damaged ones are skipped and reported."""
    steps: dict[Path, int] = {}
    rejected = []
    for path in sorted((run_dir / "checkpoints").glob("*.ckpt"), key=lambda p: p.name == "last.ckpt"):
        try:
            steps[path] = load_checkpoint(path)["global_step"]
        except ConfigError as error:
            rejected.append(f"skipped: {str(error).splitlines()[0]}")
    # of several at one step it is last.ckpt, which is written after the step and its validation
    return NewestCheckpoint(max(reversed(steps), key=lambda p: steps[p], default=None), rejected)


def describe_newest(run_dir: Path) -> str:
    """The checkpoint from which a diverged run can be resumed, as text."""
    path = newest_checkpoint(run_dir).path
    return "no checkpoint was written before" if path is None else f"{path} is the last good checkpoint"


def best_checkpoint(run_dir: Path) -> Path:
    """The best checkpoint of a run folder, otherwise its last, otherwise its weights.

    Raises:
        ConfigError: if it has none.
    """
    for name in ("best.ckpt", "last.ckpt", WEIGHTS):
        if (path := run_dir / "checkpoints" / name).exists():
            return path
    raise ConfigError(
        f"{run_dir}: contains no checkpoint\n"
        "    fix: set run_dir to the folder of a training run, or init_from to a checkpoint"
    )


def check_same_names(checkpoint: dict[str, Any], names: Mapping[str, Sequence[str]], path: Path) -> None:
    """Reject a checkpoint whose token ids or class indices have another meaning than in this run.

    Args:
        checkpoint: of any run.
        names: `DataModule.names` of this run.
        path: path of the checkpoint.

    Raises:
        ConfigError: with the first name that differs.
    """
    before = checkpoint["mmtrain"].get("names", {})  # earlier versions did not write them
    for key, now in names.items():
        theirs = before.get(key, now)
        if list(theirs) != list(now):
            first = next((i for i, (a, b) in enumerate(zip(theirs, now, strict=False)) if a != b), len(now))
            mine, its = (repr(one[first]) if first < len(one) else "nothing" for one in (now, theirs))
            raise ConfigError(
                f"{path}: trained with another vocabulary of data.{key}: {len(theirs)} names instead of {len(now)},"
                f" index {first} is {its} in the checkpoint and {mine} here\n"
                "    fix: restore the vocabulary of its run folder (tokenizer.json, .vocabulary.json ...), or use"
                " the training split of that run"
            )


def check_same_model(checkpoint: dict[str, Any], module: nn.Module, path: Path) -> None:
    """Reject a checkpoint of another model.

    Raises:
        ConfigError: with the differences and the command that created the checkpoint.
    """
    mine, theirs = module.state_dict(), checkpoint["state_dict"]
    faults = [f"{n} is not in the checkpoint" for n in mine if n not in theirs]
    faults += [f"{n} is not in this model" for n in theirs if n not in mine]
    faults += [
        f"{n} is {tuple(theirs[n].shape)} in the checkpoint and {tuple(t.shape)} here"
        for n, t in mine.items()
        if n in theirs and theirs[n].shape != t.shape
    ]
    if faults:
        shown = "\n".join(f"    {fault}" for fault in faults[:4])
        more = f"\n    ... and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ConfigError(
            f"{path}: a checkpoint of another model\n{shown}{more}\n"
            f"    its command: {checkpoint['mmtrain']['command']}\n"
            "    fix: repeat these overrides, or load its weights with init_from"
        )
