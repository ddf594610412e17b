"""Loaders that can say which samples a step has, and can be put at any step at once.

A training step is one optimizer step: `batch_size` samples over all ranks and micro-batches. The last step of an epoch
has what is left; filler samples, which have nothing, make it even, so that every sample comes exactly once an epoch for
any number of ranks. In evaluation whole batches go to the ranks in turn, so that how many there are changes no batch.
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
    """The positions of each step that belong to one rank.

    Args:
        num_samples: in the split.
        batch_size: samples of a step, over all ranks and micro-batches.
        rank: of this process.
        world_size: number of processes.
        num_micro_batches: a step's samples on a rank are cut into so many; fillers make them even.
        first_step: the optimizer step to begin with, counted from the start of training.
        limit: how many of an epoch's steps are taken, or which share of them (Lightning's limit_train_batches).
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
        self.epoch, self.start = divmod(first_step, limited(len(self), limit))

    @property
    def sampler(self) -> "TrainSteps":
        """Where Lightning looks for `set_epoch` on a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; the epoch that is being resumed keeps its place."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __iter__(self) -> Iterator[list[Position]]:
        epoch = self.epoch
        for step in range(self.start, len(self)):
            yield [(epoch, position) for position in self.positions(step)]

    def positions(self, step: int) -> list[int]:
        """The positions of a step of the epoch on this rank, -1 for fillers."""
        first = step * self.batch_size
        whole = range(first, min(first + self.batch_size, self.num_samples))
        parts = self.world_size * self.num_micro_batches
        share = math.ceil(self.batch_size / parts)
        mine: list[int] = []
        for micro_batch in range(self.num_micro_batches):  # strided, so that a short last step is spread evenly
            part = list(whole[micro_batch * self.world_size + self.rank :: parts])
            mine += part + [-1] * (share - len(part))
        return mine


class EvalSteps(Sampler[list[Position]]):
    """Batches in the order of the split, dealt to the ranks in turn; fillers where a rank has none left."""

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


def limited(num_steps: int, limit: int | float) -> int:
    """How many steps Lightning takes of so many: all at 1.0, so many at most for an int, a share for a float.

    >>> limited(40, 1.0), limited(40, 7), limited(40, 0.5)
    (40, 7, 20)
    """
    return max(1, min(num_steps, limit if isinstance(limit, int) else int(num_steps * limit)))


class Loader(DataLoader[Any]):
    """A DataLoader whose workers begin with SIGTERM blocked, see `_leave_stopping_to_main`.

    Blocked before they are forked, it is so in every thread of theirs: libraries such as wandb start some in a fork.
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
    """A DataLoader that gives one list of micro-batches a step."""
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
    """Terminals and clusters send signals to workers, too; the main process needs them to finish its step and leave.

    SIGTERM from the main process itself is how it ends its workers. Systems that do not say who sent it, such as macOS,
    are left alone.
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
