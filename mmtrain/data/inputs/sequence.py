"""Features over time that another program computed: (T, D) from .npy, .npz, .pt and .safetensors files, never pickle.

A file is data here, not a program: object arrays, and anything but tensors in a .pt file, are refused.
"""

import io
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmtrain.annotations import PositiveInt, Size
from mmtrain.data.decoding.numpy_file import ZIPS, check_numbers, chosen_array, read_numpy
from mmtrain.data.inputs.image import key_of
from mmtrain.data.order import mix
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import Statistics, in_short, restore_scale, save_scale, scaled
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Padded

# What numpy, torch and safetensors were seen to raise for damaged files.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    pickle.UnpicklingError,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)
_LOOKS = 32  # sequences that say what D is when nothing is scaled


class SequenceInput:
    """A column of features over time, (T, D) a row.

    A cell is a path relative to the table, a nested list or array, the bytes of a .npy, or the {"bytes", "path"} that
    `datasets` gives for a file. An array (T,) is taken as (T, 1); one without a single frame is a missing modality. A
    NaN or infinite number makes a sequence unreadable, because its meaning is unknown.

    Args:
        max_length: longer ones are cut to so many frames: in training a piece at random, otherwise the middle one,
            since recordings often begin and end with what belongs to no class.
        scale: standard (mean 0 and standard deviation 1 of each feature over all frames of the training split, cut
            ones whole; training then starts by reading every file once) or none. A feature that training never saw
            change is 0 with standard.
        array: the name of the array in files that hold several; null takes the first.
        max_elements: an array with more of them (T x D) is not read, because one can fill the memory.

    Attributes:
        dim: D, the most frequent width in training; 0 before `fit` or `restore`.
    """

    kind = "sequence"

    def __init__(
        self,
        *,
        max_length: Size,
        scale: Literal["standard", "none"],
        array: str | None,
        max_elements: PositiveInt,
    ) -> None:
        for name, number in (("max_length", max_length), ("max_elements", max_elements)):
            if number < 1:
                raise ValueError(f"{name} = {number} keeps no frame; set it to 1 or more")
        if scale not in ("standard", "none"):
            raise ValueError(f"scale = {scale}; set it to standard or none")
        self.max_length = max_length
        self.scale = scale
        self.array = array
        self.max_elements = max_elements
        self.fingerprint = f"sequence scale={scale} array={array}"
        self.dim = 0
        self._offset = np.zeros(0)
        self._divisor = np.zeros(0)

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn D and the scale from the cells of the training split.

        Args:
            cells: of the training split.
            folder: what a relative path starts from.

        Raises:
            ConfigError: when none can be read.
        """
        faults: list[SampleError] = []
        filled = (cell for cell in cells if not (cell is None or (isinstance(cell, str) and not cell.strip())))
        read = read_each(filled, lambda cell: self._read(content_of(cell), folder), faults)
        arrays: Iterable[np.ndarray] = (array for array in read if array.size)
        if self.scale == "none":
            arrays = islice(arrays, _LOOKS)
        by_dim: dict[int, Statistics] = {}
        num_sequences: Counter[int] = Counter()
        for array in arrays:
            dim = array.shape[1]
            num_sequences[dim] += 1
            if self.scale == "standard":
                by_dim.setdefault(dim, Statistics(dim)).add(array.astype(np.float64))
        if not num_sequences:
            example = f"such as {faults[0]}" if faults else "every cell is empty"
            raise ConfigError(
                f"no row of the training split can be read as a sequence: {example}\n"
                "    name a column of .npy, .npz, .pt or .safetensors files with arrays (T, D), or take this input out"
            )
        dim = max(num_sequences, key=lambda d: (num_sequences[d], -d))
        if self.scale == "standard":
            self._set(by_dim[dim].center, by_dim[dim].std)
        else:
            self._set(np.zeros(dim), np.ones(dim))

    def _set(self, offset: np.ndarray, divisor: np.ndarray) -> None:
        self._offset, self._divisor, self.dim = offset, divisor, len(offset)

    def save(self, folder: Path, name: str) -> None:
        """Write the scale into a run folder."""
        save_scale(folder, name, self._offset, self._divisor)

    def restore(self, folder: Path, name: str) -> None:
        """Take the scale of a run folder."""
        self._set(*restore_scale(folder, name))

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """The scaled frames (T, D), float32, T <= max_length, and the key of the cell; None when there is no frame.

        Raises:
            SampleError: when it cannot be read, is no (T, D) with training's D, or holds NaN or infinity.
        """
        value = content_of(value)
        array = self._read(value, folder)
        if not array.size:
            return None
        key = key_of(value) if isinstance(value, str | Path | bytes) else _key(array)
        if array.shape[1] != self.dim:
            raise SampleError(_named(value), f"{array.shape[1]} features a frame where training has {self.dim}")
        spare = len(array) - self.max_length
        if spare > 0:
            # 0x5E9: a draw of its own, not the one that takes a caption
            start = mix(seed, 0x5E9) % (spare + 1) if train else spare // 2
            array = array[start : start + self.max_length]
        if self.scale == "standard":
            array = scaled(array, self._offset, self._divisor)
            if np.isinf(array).any():
                raise SampleError(_named(value), "a number that is too far from those of training")
        return torch.from_numpy(np.array(array, order="C")), key

    def key(self, value: Any) -> int:
        """The key of a cell's content: of the path, of the bytes, or of the numbers of a list that can be read."""
        value = content_of(value)
        if isinstance(value, str | Path | bytes):
            return key_of(value)
        try:
            return _key(self._read(value, Path()))
        except SampleError:
            return key_of(value)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """(B, T, D) filled up with zeros to the longest, and the mask (B, T)."""
        length = max((len(v) for v in values if v is not None), default=1)
        frames = torch.zeros(len(values), length, self.dim)
        mask = torch.zeros(len(values), length, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                frames[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(frames, mask)

    def _read(self, value: Any, folder: Path) -> np.ndarray:
        """The complete sequence, (T, D) float32, finite."""
        try:
            array = self._open(value, folder)
        except _UNREADABLE as error:
            raise SampleError(_named(value), _reason(error)) from error
        if array.dtype.kind not in "biuf":
            raise SampleError(_named(value), f"an array of {array.dtype}, not of numbers")
        if array.ndim not in (1, 2):
            raise SampleError(_named(value), f"an array of shape {array.shape} where (T, D) is needed")
        with np.errstate(over="ignore"):  # becomes infinite, which is looked for next
            frames = (array[:, None] if array.ndim == 1 else array).astype(np.float32)
        if not np.isfinite(frames).all():
            raise SampleError(_named(value), "NaN or an infinite number")
        return frames

    def _open(self, value: Any, folder: Path) -> np.ndarray:
        if isinstance(value, bytes):
            return self._from_numpy(io.BytesIO(value))
        if not isinstance(value, str | Path):
            return self._from_cell(value)
        path = checked_path(folder, value)
        suffix = path.suffix.lower()
        if suffix in (".npy", ".npz"):
            with path.open("rb") as file:
                return self._from_numpy(file)
        if suffix == ".pt":
            self._check_unpacked(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            return self._from_torch(content[self._chosen(list(content))] if isinstance(content, dict) else content)
        if suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                name = self._chosen(list(file.keys()))
                self._check_numbers(file.get_slice(name).get_shape())
                return self._from_torch(file.get_tensor(name))
        raise ValueError(f"{suffix or 'a name without a suffix'} is not .npy, .npz, .pt or .safetensors")

    def _from_numpy(self, file: IO[bytes]) -> np.ndarray:
        return read_numpy(file, array=self.array, max_elements=self.max_elements)

    def _check_numbers(self, shape: Sequence[int]) -> None:
        check_numbers(shape, self.max_elements)

    def _check_unpacked(self, path: Path) -> None:
        """What PyTorch writes is not compressed; what is can become a thousand times larger when it is read."""
        with path.open("rb") as file:
            if file.read(4) not in ZIPS:
                return
            with zipfile.ZipFile(file) as archive:
                packed = sum(i.file_size for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED)
        if packed > 8 * self.max_elements:
            raise ValueError(f"{packed} bytes when unpacked, more than max_elements = {self.max_elements} have")

    def _from_cell(self, value: Any) -> np.ndarray:
        """A nested list or an array; None in it becomes NaN."""
        if isinstance(value, Tensor):
            return self._from_torch(value)
        array = value if isinstance(value, np.ndarray) and value.dtype != object else np.asarray(value, np.float64)
        self._check_numbers(array.shape)
        return array

    def _from_torch(self, content: Any) -> np.ndarray:
        if not isinstance(content, Tensor):
            raise ValueError(f"a {type(content).__name__} where a tensor is needed")
        if content.is_complex():
            raise ValueError(f"an array of {content.dtype}, not of numbers")
        self._check_numbers(content.shape)  # of a sparse or an expanded one, far more than the file has
        return content.detach().to_dense().to(torch.float32).numpy()

    def _chosen(self, names: list[Any]) -> Any:
        return chosen_array(names, self.array)


def _key(frames: np.ndarray) -> int:
    return key_of(str(frames.shape).encode() + (frames + 0.0).tobytes())  # + 0.0: -0 is 0


def _named(value: Any) -> str:
    """What a message calls a cell."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value) if isinstance(value, str | Path) else in_short(value)


def _reason(error: Exception) -> str:
    """A short message; those of numpy and torch advise to turn their protection off."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError) or "allow_pickle" in str(error):
        return "damaged, or pickled objects, which are never read"
    return next(iter(str(error).splitlines()), "") or type(error).__name__
