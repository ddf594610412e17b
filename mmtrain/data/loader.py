"""Data loaders that know the samples of each step, and can start at any step immediately.

A training step is one optimizer step: `batch_size` samples over all ranks and micro-batches. The last step of an epoch
has the remaining samples. Filler samples without inputs make it even, so every sample occurs exactly once per epoch for
any number of ranks. In evaluation, complete batches are distributed to ranks in turn, so batches do not depend on the
number of ranks.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from mmtrain.data.dataset import Position
from mmtrain.types import Batch


class TrainSteps(Sampler[list[Position]]):
    """Positions of each training step for one rank.

    Args:
        num_samples: number of samples of the split.
        batch_size: number of samples of a step, over all ranks and micro-batches.
        rank: index of this process.
        world_size: number of processes.
        num_micro_batches: number of micro-batches per rank; filler samples make them equal.
        first_step: the first optimizer step, counted from the start of training.
        limit: number or fraction of an epoch's steps (Lightning's limit_train_batches).
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_micro_batches: int = 1,
        first_step: int = 0,
        limit: int | float = 1.0,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.num_micro_batches = num_micro_batches
        self.epoch, self.start = divmod(first_step, limit_steps(len(self), limit))

    @property
    def sampler(self) -> "TrainSteps":
        """Lightning calls `set_epoch` on this attribute of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch. A resumed epoch keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __iter__(self) -> Iterator[list[Position]]:
        epoch = self.epoch
        for step in range(self.start, len(self)):
            yield [(epoch, position) for position in self.positions(step)]

    def positions(self, step: int) -> list[int]:
        """Positions of a step of the epoch on this rank, -1 for filler samples."""
        first = step * self.batch_size
        full = range(first, min(first + self.batch_size, self.num_samples))
        parts = self.world_size * self.num_micro_batches
        share = math.ceil(self.batch_size / parts)
        mine: list[int] = []
        for micro_batch in range(self.num_micro_batches):  # strided, to distribute a short last step evenly
            part = list(full[micro_batch * self.world_size + self.rank :: parts])
            mine += part + [-1] * (share - len(part))
        return mine


class EvalSteps(Sampler[list[Position]]):
    """Batches in the order of the split, distributed to ranks in turn; filler samples on ranks without a batch."""

    def __init__(self, *, num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return math.ceil(math.ceil(self.num_samples / self.batch_size) / self.world_size)

    def __iter__(self) -> Iterator[list[Position]]:
        for turn in range(len(self)):
            first = (turn * self.world_size + self.rank) * self.batch_size
            mine = [(0, p) for p in range(first, min(first + self.batch_size, self.num_samples))]
            yield mine + [(0, -1)] * (self.batch_size - len(mine))


def limit_steps(num_steps: int, limit: int | float) -> int:
    """Number of steps that Lightning takes: all for 1.0, at most `limit` for an int, a fraction for a float.

    >>> limit_steps(40, 1.0), limit_steps(40, 7), limit_steps(40, 0.5)
    (40, 7, 20)
    """
    return max(1, min(num_steps, limit if isinstance(limit, int) else int(num_steps * limit)))


class Loader(DataLoader[Any]):
    """A DataLoader whose workers start with SIGTERM blocked, see `_leave_stopping_to_main`.

    It is blocked before the fork, so it is blocked in all of their threads. Libraries such as wandb start some in a
    fork.
    """

    def _get_iterator(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return super()._get_iterator()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_loader(
    split: Dataset[Any],
    steps: Sampler[list[Position]],
    collate: Callable[[Sequence[Any]], list[Batch]],
    *,
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    """A DataLoader that yields one list of micro-batches per step."""
    return Loader(
        split,
        batch_sampler=steps,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_stopping_to_main,
    )


def _leave_stopping_to_main(worker: int) -> None:
    """Let the main process handle signals that terminals and clusters also send to workers.

    The main process needs its workers to finish the current step. It ends its workers by a SIGTERM of its own. Nothing
    is done on systems that do not report the sender of a signal, such as macOS.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        Thread(target=_end_with, args=[os.getppid()], daemon=True).start()


def _end_with(main: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid not in (main, os.getppid()):
        pass
    os._exit(0)
