"""Weights without optimizer state in the safetensors format, with the metadata of their run in the header.

Unlike a checkpoint, safetensors stores a tensor once per name, so tied weights are written for each name. The header
has a digest of everything else, because the format itself does not detect flipped bits.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmtrain.errors import WriteError
from mmtrain.io.atomic import atomic_write
from mmtrain.io.os_errors import FIXES, environment_errno

SUFFIX = ".safetensors"


def write_weights(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights of a checkpoint to `path`, with its step and metadata, atomically.

    Raises:
        WriteError: if the disk is full, or the file cannot be written.
    """
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint["state_dict"].items()
    }
    header = {"step": str(checkpoint["global_step"]), "mmtrain": json.dumps(checkpoint["mmtrain"])}
    try:
        with atomic_write(path) as part:
            save_file(weights, part, metadata=header | {"sha256": _digest(weights, header)})
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:160]
        number = environment_errno(error)
        fix = "free space" if number in (None, errno.ENOSPC) else FIXES[number]
        raise WriteError(
            f"{path}: cannot be written: {reason}\n    fix: {fix}, or set checkpoint.safetensors=false"
        ) from error


def read_weights(path: Path) -> dict[str, Any]:
    """Read weights of `write_weights` as a checkpoint without optimizer state: state_dict, global_step, mmtrain.

    Raises:
        ValueError: if the file has another format, or was modified.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            names = file.keys()  # it is not a mapping and has no iterator
            weights = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise ValueError(f"not a safetensors file, or an incomplete one: {str(error).splitlines()[0][:160]}") from error
    if not {"step", "mmtrain", "sha256"} <= header.keys():
        raise ValueError("its header has no metadata of mmtrain")
    if header.pop("sha256") != _digest(weights, header):
        raise ValueError("the SHA-256 of its content differs from the one in its header")
    return {"state_dict": weights, "global_step": int(header["step"]), "mmtrain": json.loads(header["mmtrain"])}


def _digest(weights: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
