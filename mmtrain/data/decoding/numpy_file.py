"""Arrays of .npy and .npz files, never pickle: a file is data here, not a program, so object arrays are refused."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

ZIPS = (b"PK\3\4", b"PK\5\6")  # what an archive begins with, and an empty one
_NPY_HEAD = 10_000  # bytes: numpy itself takes no longer header
_BYTES_A_NUMBER = 32  # at most: a complex long double
ENDINGS = (".npy", ".npz")


def is_numpy(source: Path | bytes) -> bool:
    """Whether a source is an array file: a path by its ending, bytes by what they begin with."""
    if isinstance(source, bytes):
        return source.startswith(np.lib.format.MAGIC_PREFIX)
    return source.suffix.lower() in ENDINGS


def array_of(source: Path | bytes, *, max_elements: int) -> np.ndarray:
    """The only array of a file.

    Args:
        source: a path, or the content of a .npy.
        max_elements: an array with more of them is not read, because one can fill the memory.

    Raises:
        ValueError: when it is damaged or too large, and for a .npz with several arrays.
    """
    (array,) = arrays_of(source, max_elements=max_elements, others=()).values()
    return array


def arrays_of(source: Path | bytes, *, max_elements: int, others: Sequence[str]) -> dict[str, np.ndarray]:
    """One array of a file under "array", and arrays of other names next to it.

    Args:
        source: a path, or the content of a .npy.
        max_elements: as of `array_of`.
        others: names of arrays that a .npz can have next to its only other one.

    Raises:
        ValueError: as `array_of`.
    """
    if isinstance(source, bytes):
        return {"array": read_numpy(io.BytesIO(source), array=None, max_elements=max_elements)}
    with source.open("rb") as file:
        is_npz = file.read(4) in ZIPS
        file.seek(0)
        if not is_npz:
            return {"array": read_numpy(file, array=None, max_elements=max_elements)}
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
        except zipfile.BadZipFile as error:
            raise ValueError(f"damaged: {error}") from error
        main = [name for name in names if name not in others]
        if len(main) != 1:
            raise ValueError(f"it has the arrays {', '.join(names) or 'none'}; save one in each file")
        wanted = {"array": main[0]} | {name: name for name in names if name in others}
        return {key: read_numpy(file, array=name, max_elements=max_elements) for key, name in wanted.items()}


def read_numpy(file: IO[bytes], *, array: str | None, max_elements: int) -> np.ndarray:
    """An array of an open .npy or .npz.

    Args:
        file: at any place.
        array: the name of an array of a .npz; None for the first.
        max_elements: as of `array_of`.

    Raises:
        ValueError: when it is damaged, too large, or holds objects.
    """
    file.seek(0)
    is_npz = file.read(4) in ZIPS
    file.seek(0)
    if not is_npz:
        return _from_npy(file, max_elements)
    with zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        with archive.open(members[chosen_array(list(members), array)]) as member:
            return _from_npy(member, max_elements)


def _from_npy(file: IO[bytes], max_elements: int) -> np.ndarray:
    """An array whose header says that it has no more numbers than may be; only then memory is taken for it."""
    head = io.BytesIO(file.read(_NPY_HEAD))
    if not head.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("damaged, or pickled objects, which are never read")
    is_first = np.lib.format.read_magic(head) == (1, 0)  # 3.0 differs from 2.0 by UTF-8 in names alone
    read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(head)
    check_numbers(shape, max_elements)
    if dtype.hasobject:
        raise ValueError("damaged, or pickled objects, which are never read")
    if dtype.itemsize > _BYTES_A_NUMBER:
        raise ValueError(f"an array of {dtype}, not of numbers")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def check_numbers(shape: Sequence[int], max_elements: int) -> None:
    """Refuse an array that has too many numbers.

    Raises:
        ValueError: with its shape.
    """
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError(f"damaged: an array of shape {shape}")
    if math.prod(shape) > max_elements:
        raise ValueError(f"an array of shape {tuple(shape)}, which has more than max_elements = {max_elements}")


def chosen_array(names: list[Any], array: str | None) -> Any:
    """The requested array, or the first.

    Raises:
        ValueError: when it is not there.
    """
    if not names:
        raise ValueError("no array in it")
    if array is not None and array not in names:
        raise ValueError(f"no array {array}, but {', '.join(map(str, names[:5]))}")
    return names[0] if array is None else array
