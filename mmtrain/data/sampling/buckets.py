"""Batches of similar samples: of similar length, to reduce padding, or with the same value in a column.

Consecutive positions of `window` batches are sorted by length and split into batches, and the batches are put in a
keyed order. The samples of a step are still a function of seed, epoch and step only. Sorting within windows, instead of
over all rows, keeps the other samples of a batch random. With a token budget (as fairseq's `max_tokens`) a batch has
many short or few long samples. With a column of words, rows with the same word share a batch, which gives contrastive
tasks hard negatives.

Unusual: the number of steps is equal in every epoch although the batches differ, because schedules, limits and resumed
runs depend on it. An upper bound for all epochs is computed in advance, and large batches are halved to reach it.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mmtrain.annotations import PositiveInt
from mmtrain.data.dataset import Position
from mmtrain.data.loader import limit_steps
from mmtrain.data.order import Order, mix, permute, permute_many

_BATCHES = 0xBA7C
_NAMES = 0x4A3E


@dataclass(frozen=True)
class Buckets:
    """How training batches are made of similar rows.

    Attributes:
        by: an input with a length (text, audio, video, sequence), or a column of the table: numbers to sort by, or
            words to group by. None for random batches.
        window: number of batches whose rows are sorted together.
        max_tokens: rows x longest of a step, over all devices; None for steps of `batch_size` rows.

    Raises:
        ValueError: for a window or a budget below 1.
    """

    by: str | None
    window: PositiveInt
    max_tokens: PositiveInt | None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"bucket.window = {self.window} batches; set it to 1 or more")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"bucket.max_tokens = {self.max_tokens}; set it to 1 or more, or to null")
        if self.max_tokens is not None and self.by is None:
            raise ValueError(
                f"bucket.max_tokens = {self.max_tokens} has no effect without bucket.by\n"
                "    fix: set data.bucket.by to an input with a length, such as text"
            )


class Plan(NamedTuple):
    """The steps of an epoch by window.

    Attributes:
        extra: (windows,), int64, number of additional batches of a window, from halving others.
        ends: (windows,), int64, number of steps up to the end of a window.
    """

    extra: np.ndarray
    ends: np.ndarray


class BucketedSteps(Sampler[list[Position]]):
    """Positions of each step for one rank, as in `TrainSteps`, but of similar lengths.

    Args:
        lengths: (rows,), length of each row of the table, in tokens or other padded units; 0 for an empty row.
        order: maps positions to rows, which have lengths.
        seed: seed of the order.
        batch_size: number of samples of a step, over all ranks and micro-batches; with a budget, the maximum.
        max_tokens: rows x longest of a step, over all ranks and micro-batches; None for batches of `batch_size`.
        window: number of batches whose positions are sorted together; 1 disables bucketing.
        rank: index of this process.
        world_size: number of processes.
        num_micro_batches: number of micro-batches per rank; filler samples make them equal.
        names: whether `lengths` are indices of words: rows of one word share a batch, and neighbouring words change.
        first_step: the first optimizer step, counted from the start of training.
        limit: number or fraction of an epoch's steps (Lightning's limit_train_batches).

    Raises:
        ValueError: if a row is longer than the budget, or with a budget and an order that does not have each row once
            per epoch, for which no bound is known.
    """

    def __init__(
        self,
        *,
        lengths: np.ndarray,
        order: Order,
        seed: int,
        batch_size: int,
        max_tokens: int | None,
        window: int,
        rank: int = 0,
        world_size: int = 1,
        num_micro_batches: int = 1,
        names: bool = False,
        first_step: int = 0,
        limit: int | float = 1.0,
    ) -> None:
        longest = int(lengths.max())
        if max_tokens is not None and longest > max_tokens:
            raise ValueError(
                f"data.bucket.max_tokens = {max_tokens}, but row {int(lengths.argmax())} has {longest}\n"
                f"    fix: set data.bucket.max_tokens to {longest} or more, or let the input truncate long rows"
            )
        assert window >= 1, "checked by Buckets"
        if max_tokens is not None and not order.has_each_once:
            raise ValueError(
                f"data.bucket.max_tokens = {max_tokens} needs epochs with each row once, which weights, a"
                " temperature or an epoch_size of data=mix prevent\n"
                "    fix: set data.bucket.max_tokens to null, or mix by size"
            )
        self.lengths = lengths
        self.order = order
        self.seed = seed
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.window = window * batch_size  # number of positions
        self.rank = rank
        self.world_size = world_size
        self.num_micro_batches = num_micro_batches
        self.names = names
        self._num_windows = math.ceil(len(order) / self.window)
        self._num_steps = self._bound()
        self._plans: dict[int, Plan] = {}
        self._batches: tuple[tuple[int, int], list[list[int]]] | None = None
        self.epoch, self.start = divmod(first_step, limit_steps(len(self), limit))

    @property
    def sampler(self) -> "BucketedSteps":
        """Lightning calls `set_epoch` on this attribute of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch. A resumed epoch keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self._num_steps

    def __iter__(self) -> Iterator[list[Position]]:
        epoch = self.epoch
        for step in range(self.start, len(self)):
            yield [(epoch, position) for position in self.positions(step, epoch)]

    def positions(self, step: int, epoch: int) -> list[int]:
        """Positions of a step of an epoch on this rank, -1 for filler samples."""
        full = self.batch(step, epoch)
        parts = self.world_size * self.num_micro_batches
        share = math.ceil((self.batch_size if self.max_tokens is None else len(full)) / parts)
        mine: list[int] = []
        for micro_batch in range(self.num_micro_batches):  # strided, so each has long and short ones
            part = full[micro_batch * self.world_size + self.rank :: parts]
            mine += part + [-1] * (share - len(part))
        return mine

    def batch(self, step: int, epoch: int) -> list[int]:
        """Positions of a step on all ranks, the longest first."""
        if self.max_tokens is None:
            window, nth = divmod(step, self.window // self.batch_size)
        else:
            ends = self._plan(epoch).ends
            window = int(ends.searchsorted(step, side="right"))
            nth = step - (int(ends[window - 1]) if window else 0)
        if self._batches is None or self._batches[0] != (epoch, window):
            self._batches = (epoch, window), self._of_window(window, epoch)
        return self._batches[1][nth]

    def _of_window(self, window: int, epoch: int) -> list[list[int]]:
        """Batches of a window, in their final order."""
        first = window * self.window
        lengths = self._lengths(window, epoch)
        places = np.argsort(-lengths, kind="stable")
        cuts = self._cuts(lengths[places])
        if self.max_tokens is not None:
            cuts = halve(cuts, len(places), int(self._plan(epoch).extra[window]))
        batches = [(first + batch).tolist() for batch in np.split(places, cuts[1:])]
        seed = mix(self.seed, window, _BATCHES)
        return [batches[permute(nth, len(batches), seed=seed, epoch=epoch)] for nth in range(len(batches))]

    def _lengths(self, window: int, epoch: int) -> np.ndarray:
        first = window * self.window
        last = min(first + self.window, len(self.order))
        rows = self.order.rows(np.arange(first, last), seed=self.seed, epoch=epoch)
        lengths = self.lengths[rows].astype(np.int64)
        if not self.names:
            return lengths
        seed = mix(self.seed, window, _NAMES)
        return permute_many(lengths, int(self.lengths.max()) + 1, seed=seed, epoch=epoch)

    def _cuts(self, lengths: np.ndarray) -> list[int]:
        """First indices of batches in descending lengths."""
        if self.max_tokens is None:
            return list(range(0, len(lengths), self.batch_size))
        cuts, capacity = [0], self._capacity(lengths)
        while (after := cuts[-1] + int(capacity[cuts[-1]])) < len(lengths):
            cuts.append(after)
        return cuts

    def _capacity(self, lengths: np.ndarray) -> np.ndarray:
        """Maximum number of rows of each length in a batch."""
        assert self.max_tokens is not None
        return np.minimum(self.batch_size, self.max_tokens // np.maximum(lengths, 1))

    def _bound(self) -> int:
        """An upper bound for the number of steps of any epoch.

        In a window, let n be the capacity for the longest row of a batch; it grows from one batch to the next. In a
        batch that is not the last, each row has at most the next batch's n'. The sum of 1 / capacity over its rows is
        therefore at least n / n', and 1 - n / n' <= log(n' / n). Over all batches: their number is at most the sum of 1
        / capacity over the window, plus log(largest n / smallest n), plus 1 for the last.
        """
        num_samples = len(self.order)
        if self.max_tokens is None:
            return math.ceil(num_samples / self.batch_size)
        capacity = self._capacity(self.lengths)
        slack = 1 + math.log(int(capacity.max()) / int(capacity.min()))
        return min(num_samples, math.floor(float((1 / capacity).sum()) + self._num_windows * slack + 1e-6))

    def _plan(self, epoch: int) -> Plan:
        """The steps of an epoch by window. The first call for an epoch uses all lengths, but no samples."""
        if epoch not in self._plans:
            windows = range(self._num_windows)
            sizes = np.array([min(self.window, len(self.order) - w * self.window) for w in windows])
            counts = np.array([len(self._cuts(-np.sort(-self._lengths(w, epoch)))) for w in windows])
            room = np.cumsum(sizes - counts)  # number of possible additional batches
            extra = np.zeros_like(counts)
            if room[-1]:
                extra = np.diff(room * (len(self) - int(counts.sum())) // room[-1], prepend=0)
            self._plans = {epoch: Plan(extra, np.cumsum(counts + extra))}
        return self._plans[epoch]


def halve(cuts: Sequence[int], size: int, extra: int) -> list[int]:
    """Split batches of the same rows: the largest is halved, `extra` times.

    >>> halve([0, 2, 6], 10, 2)
    [0, 2, 4, 6, 8]
    """
    heap = [(first - last, first) for first, last in zip(cuts, [*cuts[1:], size], strict=True)]
    heapq.heapify(heap)
    for _ in range(extra):
        negative, first = heapq.heappop(heap)
        upper = -negative // 2
        assert upper, "there are enough rows"
        heapq.heappush(heap, (-upper, first))
        heapq.heappush(heap, (negative + upper, first + upper))
    return sorted(first for _, first in heap)
