"""All rows of an optimizer step, for tasks that pair a row with another row of the step.

A step is split into micro-batches and distributed over ranks. A task that draws another row draws it from the complete
step, so the result does not depend on the split. If each rank has one micro-batch, ranks exchange the encoded features
of the drawn rows, with their gradients. If a rank has several, the graph of another micro-batch is not in memory. Then
ranks exchange the inputs of the drawn rows, which are encoded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.distributed import all_reduce_max, gather, gather_rows, rank, world_size
from mmtrain.tasks.task import SamplesNegatives, Task
from mmtrain.types import Batch, Features, Padded, View


class GlobalBatch:
    """The rows of one step, over all micro-batches and ranks.

    Args:
        window: the micro-batches of this rank. All ranks have the same number of rows.
        tasks: names of the tasks whose vectors of all rows are needed.

    Attributes:
        num_rows: of this rank.
        rows: of all ranks, without inputs and targets.
    """

    def __init__(self, window: Sequence[Batch], tasks: frozenset[str]) -> None:
        self.window = window
        self.tasks = tasks if len(window) > 1 else frozenset()  # a single micro-batch computes them itself
        self.num_rows = sum(len(batch) for batch in window)
        self.rows = _gathered(concatenate_batches(window))
        self._vectors: dict[str, dict[str, Tensor]] = {}

    def fill(self, task: str, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Store a task's vectors of each micro-batch of this rank, (b, D) by modality."""
        self._vectors[task] = {m: gather(torch.cat([part[m].detach() for part in parts])) for m in parts[0]}

    def vectors(self, task: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `mmtrain.types.Step`."""
        return self._vectors[task] if len(self.window) > 1 else {m: gather(v.detach()) for m, v in own.items()}

    def features(self, features: Features, places: Tensor) -> Features:
        """Return the features of other rows, (B,), with their gradients. Each rank has one micro-batch."""
        more = all_reduce_max(features.mask.shape[1], places.device) - features.mask.shape[1]
        tokens = gather_rows(F.pad(features.tokens, (0, 0, 0, more)), places)
        return Features(tokens, gather_rows(F.pad(features.mask, (0, more)).byte(), places).bool())

    def inputs(self, modality: str, places: Tensor) -> Padded:
        """Return the inputs of other rows, (B,), from all micro-batches."""
        parts = [batch.inputs[modality] for batch in self.window]
        if parts[0].mask is None:
            return Padded(gather_rows(torch.cat([part.values for part in parts]), places), None)
        length = all_reduce_max(max(part.values.shape[1] for part in parts), places.device)
        values = torch.cat([_padded(part.values, length) for part in parts])
        masks = torch.cat([_padded(part.mask, length) for part in parts if part.mask is not None])
        return Padded(gather_rows(values, places), gather_rows(masks.byte(), places).bool())


class MicroBatch:
    """A micro-batch as a part of its step. It is a `mmtrain.types.Step`.

    Args:
        global_batch: of the step.
        number: of the micro-batch on this rank.
    """

    def __init__(self, global_batch: GlobalBatch, number: int) -> None:
        self.global_batch = global_batch
        self.rows = global_batch.rows
        self._first = rank() * global_batch.num_rows + sum(len(batch) for batch in global_batch.window[:number])
        self._size = len(global_batch.window[number])

    def place(self) -> Tensor:
        """See `mmtrain.types.Step`."""
        return torch.arange(self._first, self._first + self._size, device=self.rows.draws.device)

    def vectors(self, task: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `mmtrain.types.Step`."""
        return self.global_batch.vectors(task, own)

    def paired(self, view: View, places: Mapping[str, Tensor]) -> View:
        """See `mmtrain.types.Step`."""
        if len(self.global_batch.window) > 1:
            return view.with_inputs({m: self.global_batch.inputs(m, where) for m, where in places.items()})
        if world_size() > 1:
            return view.with_features(
                {m: self.global_batch.features(view.encoded(m), where) for m, where in places.items()}
            )
        return view.paired(dict(places))


def attach_global_batch(window: Sequence[Batch], tasks: Mapping[str, Task]) -> list[Batch]:
    """Return the micro-batches of a rank, with their `step` if a task pairs rows. All ranks call it together."""
    pairing = [
        task for task in tasks.values() if isinstance(task, SamplesNegatives) and task.negatives_from_global_batch()
    ]
    if not pairing:
        return list(window)
    sources = {task.hard_negatives_from for task in pairing}
    global_batch = GlobalBatch(window, frozenset(sources & set(tasks)))
    return [replace(batch, step=MicroBatch(global_batch, number)) for number, batch in enumerate(window)]


def concatenate_batches(window: Sequence[Batch]) -> Batch:
    """Return the rows of several micro-batches with presence, keys and draws, but without inputs and targets."""
    return Batch(
        ids=[id for batch in window for id in batch.ids],
        rows=torch.cat([batch.rows for batch in window]),
        inputs={},
        present={m: torch.cat([batch.present[m] for batch in window]) for m in window[0].present},
        targets={},
        labelled={},
        keys={m: torch.cat([batch.keys[m] for batch in window]) for m in window[0].keys},
        draws=torch.cat([batch.draws for batch in window]),
    )


def _gathered(batch: Batch) -> Batch:
    gathered = batch.map(gather)
    return replace(gathered, ids=[""] * len(gathered.rows))


def _padded(values: Tensor, length: int) -> Tensor:
    """(B, L, ...) -> (B, length, ...), padded with zeros under a False mask."""
    return torch.cat([values, values.new_zeros(len(values), length - values.shape[1], *values.shape[2:])], dim=1)
