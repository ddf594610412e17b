"""Weights of others: read from a file without running code, put into a module, positions resized."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state dict that torch.save wrote.

    Raises:
        ValueError: when there is no such file, or it holds anything but tensors by name.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"pretrained = {path} is not a file; name one of weights, .safetensors or .pth")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ValueError(f"pretrained = {path} cannot be read as weights: {reason}") from error
    if not isinstance(held, Mapping) or not all(torch.is_tensor(value) for value in held.values()):
        raise ValueError(f"pretrained = {path} holds more than tensors by name; save the state dict alone")
    return dict(held)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, ignore: tuple[str, ...] = ()) -> None:
    """Put weights into a module: every parameter and buffer of it, by name.

    Args:
        module: the module.
        weights: by name; already resized to the module's positions.
        name: where they come from, for the message.
        ignore: beginnings of names that may be left over, such as the head of the classifier they were trained as.

    Raises:
        ValueError: with the first few that are missing, left over or of another shape.
    """
    mine = module.state_dict()
    kept = {n: w for n, w in weights.items() if n in mine or not n.startswith(ignore)}
    faults = [f"{n} is missing there" for n in mine if n not in kept]
    faults += [f"{n} is not in this encoder" for n in kept if n not in mine]
    faults += [
        f"{n} is {tuple(kept[n].shape)} there and {tuple(t.shape)} here"
        for n, t in mine.items()
        if n in kept and kept[n].shape != t.shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"pretrained = {name} does not fit: {'; '.join(faults[:3])}{more}\n"
            "    set the sizes of the encoder to those of the weights"
        )
    module.load_state_dict(kept)


def resized_grid(positions: Tensor, grid: tuple[int, int], *, num_prefix: int) -> Tensor:
    """Learned positions of a grid of patches, for another grid: bicubic with antialiasing (as timm does).

    Args:
        positions: (1, num_prefix + P, D); the grid they were trained for is square.
        grid: rows and columns wanted.
        num_prefix: positions in front that belong to no patch, such as the class token's.

    Returns:
        (1, num_prefix + grid[0] * grid[1], D), of the same dtype.

    Raises:
        ValueError: when they were not trained for a square.
    """
    prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} positions of patches are no square grid; they cannot be resized")
    if (side, side) == grid:
        return positions
    square = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([prefix, square.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)


def resized_line(positions: Tensor, length: int) -> Tensor:
    """Learned positions of a sequence (1, T, D), linearly interpolated to (1, length, D)."""
    if positions.shape[1] == length:
        return positions
    line = positions.float().transpose(1, 2)
    return F.interpolate(line, size=length, mode="linear", align_corners=True).transpose(1, 2).to(positions.dtype)
