"""Pretrained weights: read from a file without running code, load into a module, resize positions."""

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
    """Return the tensors of a .safetensors file, or of a state dict saved by torch.save.

    Raises:
        ValueError: if the file does not exist, or contains anything but tensors by name.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"pretrained = {path} is not a file; set it to a weights file, .safetensors or .pth")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ValueError(f"pretrained = {path} cannot be read as weights: {reason}") from error
    if not isinstance(content, Mapping) or not all(torch.is_tensor(value) for value in content.values()):
        raise ValueError(f"pretrained = {path} contains more than tensors by name; save only the state dict")
    return dict(content)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, ignore: tuple[str, ...] = ()) -> None:
    """Load every parameter and buffer of a module from weights, by name.

    Args:
        module: the module.
        weights: tensors by name, already resized to the module's positions.
        name: origin of the weights, for the error message.
        ignore: prefixes of names that may be unused, such as the head of the original classifier.

    Raises:
        ValueError: with the first few names that are missing, unexpected or have another shape.
    """
    mine = module.state_dict()
    kept = {n: w for n, w in weights.items() if n in mine or not n.startswith(ignore)}
    faults = [f"{n} is missing in the file" for n in mine if n not in kept]
    faults += [f"{n} is not in this encoder" for n in kept if n not in mine]
    faults += [
        f"{n} is {tuple(kept[n].shape)} in the file and {tuple(t.shape)} in the encoder"
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
    """Resize learned positions of a patch grid to another grid, bicubic with antialiasing (as timm does).

    Args:
        positions: (1, num_prefix + P, D); the grid that they were trained for must be square.
        grid: target rows and columns.
        num_prefix: number of leading positions without a patch, such as that of the class token.

    Returns:
        (1, num_prefix + grid[0] * grid[1], D), with the same dtype.

    Raises:
        ValueError: if the P positions are not a square grid.
    """
    prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} positions of patches are not a square grid; they cannot be resized")
    if (side, side) == grid:
        return positions
    square = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([prefix, square.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)


def resized_line(positions: Tensor, length: int) -> Tensor:
    """Interpolate learned positions of a sequence (1, T, D) linearly to (1, length, D)."""
    if positions.shape[1] == length:
        return positions
    line = positions.float().transpose(1, 2)
    return F.interpolate(line, size=length, mode="linear", align_corners=True).transpose(1, 2).to(positions.dtype)
