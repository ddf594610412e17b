"""The order of samples: a keyed permutation that maps position p of epoch e under seed s to a row.

It needs O(1) memory and no state. Nothing is shuffled, so nothing has to be saved, and workers, ranks and restarts do
not change it. Every other random draw of a sample uses `draw_seed` of the same three numbers.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

_MASK = (1 << 64) - 1
_ROUNDS = 6
_BLOCKS = 0xB10C


def mix(*numbers: int) -> int:
    """A well-mixed 64-bit number from several (chained finaliser of SplitMix64, 10.1145/2714064.2660195)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def draw_seed(seed: int, epoch: int, position: int) -> int:
    """The seed of all random draws (augmentation, choice of a caption) of one sample; 63 bits."""
    return mix(seed, 1 + epoch, position, 0xD12A) >> 1


def permute(position: int, size: int, *, seed: int, epoch: int) -> int:
    """The row at a position of an epoch.

    A balanced Feistel network over the smallest even number of bits for `size`. It is applied until the value is in
    range (at most four times in expectation), which is a bijection of 0..size-1.

    >>> sorted(permute(p, 10, seed=0, epoch=3) for p in range(10)) == list(range(10))
    True
    """
    assert 0 <= position < size, f"position {position} of {size}"
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (mix(seed, epoch, turn, right) & low)
        value = left << half | right
        if value < size:
            return value


def permute_many(positions: np.ndarray, size: int, *, seed: int, epoch: int) -> np.ndarray:
    """`permuted` for many positions, some hundred times as fast.

    Args:
        positions: (N,), int64, each 0 <= position < size.
        size: size of the permutation.
        seed: seed of the run.
        epoch: index of the epoch.

    Returns:
        (N,), int64.

    >>> permute_many(np.arange(3), 10, seed=0, epoch=3).tolist(), permute(2, 10, seed=0, epoch=3)
    ([6, 0, 7], 7)
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    keys = [mix(seed, epoch, turn) for turn in range(_ROUNDS)]
    values = positions.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        left, right = values[outside] >> np.uint64(half), values[outside] & low
        for key in keys:
            left, right = right, left ^ (_mixed(key, right) & low)
        values[outside] = left << np.uint64(half) | right
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _mixed(state: int, numbers: np.ndarray) -> np.ndarray:
    """The last round of `mix`, for an array of uint64. Products of numpy wrap as those of `mix` are truncated."""
    mixed = (np.uint64(state) ^ numbers) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Order(Protocol):
    """Maps the positions of an epoch to rows of a table. Its length is that of an epoch."""

    @property
    def has_each_once(self) -> bool:
        """Whether every epoch has every row of the table exactly once."""
        ...

    def __len__(self) -> int: ...

    def row(self, position: int, *, seed: int, epoch: int) -> int:
        """The row at a position, 0 <= position < len(self)."""
        ...

    def rows(self, positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The rows at any positions, (N,) -> (N,), int64."""
        ...


class KeyedOrder:
    """Every row once per epoch, with a new permutation each time."""

    has_each_once = True

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def row(self, position: int, *, seed: int, epoch: int) -> int:
        """The row at a position."""
        return permute(position, self.size, seed=seed, epoch=epoch)

    def rows(self, positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The rows at any positions, (N,) -> (N,), int64."""
        return permute_many(positions, self.size, seed=seed, epoch=epoch)


class BlockOrder:
    """Every row once per epoch, in an order that reads the blocks almost one after the other.

    The blocks (shards, row groups) have a new permutation in each epoch. Rows of `window` consecutive blocks are
    permuted together. A reader that keeps `window` blocks open reads each of them once per epoch.

    Args:
        sizes: number of rows of each block, in the order of the table.
        window: number of blocks whose rows are mixed. More mixes better but needs more memory; all of them equal a
            KeyedOrder.

    Raises:
        ValueError: for a window below 1.
    """

    has_each_once = True

    def __init__(self, sizes: Sequence[int] | np.ndarray, *, window: int) -> None:
        if window < 1:
            raise ValueError(f"window = {window} blocks; set it to 1 or more")
        self.window = window
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._first_rows = np.cumsum(self._sizes) - self._sizes
        self._size = int(self._sizes.sum())
        self._plans: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self._size

    def row(self, position: int, *, seed: int, epoch: int) -> int:
        """The row at a position, in O(log blocks) time after the first one of an epoch."""
        assert 0 <= position < self._size, f"position {position} of {self._size}"
        blocks, starts = self._plan(seed, epoch)
        window = (int(starts.searchsorted(position, side="right")) - 1) // self.window
        begin, end = self._bounds(starts, window)
        place = begin + permute(position - begin, end - begin, seed=mix(seed, window), epoch=epoch)
        nth = int(starts.searchsorted(place, side="right")) - 1
        return int(self._first_rows[blocks[nth]]) + place - int(starts[nth])

    def rows(self, positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The rows at any positions, (N,) -> (N,), int64, computed per window."""
        blocks, starts = self._plan(seed, epoch)
        windows = (starts.searchsorted(positions, side="right") - 1) // self.window
        places = np.empty(len(positions), dtype=np.int64)
        for window in np.unique(windows).tolist():
            begin, end = self._bounds(starts, window)
            here = windows == window
            places[here] = begin + permute_many(
                positions[here] - begin, end - begin, seed=mix(seed, window), epoch=epoch
            )
        nth = starts.searchsorted(places, side="right") - 1
        return self._first_rows[blocks[nth]] + places - starts[nth]

    def _bounds(self, starts: np.ndarray, window: int) -> tuple[int, int]:
        """First position of a window, and first position after it."""
        after = (window + 1) * self.window
        return int(starts[window * self.window]), int(starts[after]) if after < len(starts) else self._size

    def _plan(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks in the order of an epoch, and the first position of each; cached for the last two epochs."""
        if (seed, epoch) not in self._plans:
            full = np.flatnonzero(self._sizes)
            blocks = full[permute_many(np.arange(len(full)), len(full), seed=mix(seed, _BLOCKS), epoch=epoch)]
            sizes = self._sizes[blocks]
            if len(self._plans) == 2:
                del self._plans[next(iter(self._plans))]
            self._plans[seed, epoch] = blocks, np.cumsum(sizes) - sizes
        return self._plans[seed, epoch]
