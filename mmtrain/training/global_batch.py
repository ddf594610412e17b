"""All rows of an optimizer step, for tasks that pair a row with another one wherever that one is.

A step is cut into micro-batches and dealt to ranks. A task that draws a partner for a row draws it from the whole step,
so that the cut changes nothing. Where each rank has one micro-batch, the partner's encoded features are sent, and their
gradient comes back. Where there are several, the partner's graph is not there at the same time: then its contents are
sent, and encoded once more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.distributed import gather, largest, rank, rows_of_all, world_size
from mmtrain.tasks.task import Pairs, Task
from mmtrain.types import Batch, Features, Padded, View


class StepRows:
    """Of one step, on this rank.

    Args:
        window: the micro-batches of this rank; as many rows in all as those of any other.
        wanted: names of the tasks whose vectors of all rows are asked for.
    """

    def __init__(self, window: Sequence[Batch], wanted: frozenset[str]) -> None:
        self.window = window
        self.wanted = wanted if len(window) > 1 else frozenset()  # one micro-batch says them itself
        self.num_rows = sum(len(batch) for batch in window)
        self.everything = _of_all(together(window))
        self._vectors: dict[str, dict[str, Tensor]] = {}

    def fill(self, task: str, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Take what a task says of each micro-batch of this rank, (b, D) by modality."""
        self._vectors[task] = {m: gather(torch.cat([part[m].detach() for part in parts])) for m in parts[0]}

    def vectors(self, task: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `mmtrain.types.Step`."""
        return self._vectors[task] if len(self.window) > 1 else {m: gather(v.detach()) for m, v in own.items()}

    def features(self, features: Features, places: Tensor) -> Features:
        """Those of other rows, (B,), with their gradients; of one micro-batch a rank."""
        more = largest(features.mask.shape[1], places.device) - features.mask.shape[1]
        tokens = rows_of_all(F.pad(features.tokens, (0, 0, 0, more)), places)
        return Features(tokens, rows_of_all(F.pad(features.mask, (0, more)).byte(), places).bool())

    def contents(self, modality: str, places: Tensor) -> Padded:
        """Those of other rows, (B,), from all micro-batches."""
        parts = [batch.inputs[modality] for batch in self.window]
        if parts[0].mask is None:
            return Padded(rows_of_all(torch.cat([part.values for part in parts]), places), None)
        length = largest(max(part.values.shape[1] for part in parts), places.device)
        values = torch.cat([_as_long(part.values, length) for part in parts])
        masks = torch.cat([_as_long(part.mask, length) for part in parts if part.mask is not None])
        return Padded(rows_of_all(values, places), rows_of_all(masks.byte(), places).bool())


class StepPart:
    """A micro-batch's place in its step; a `mmtrain.types.Step`.

    Args:
        rows: of the step.
        number: of the micro-batch on this rank.
    """

    def __init__(self, rows: StepRows, number: int) -> None:
        self.rows = rows
        self.everything = rows.everything
        self._first = rank() * rows.num_rows + sum(len(batch) for batch in rows.window[:number])
        self._size = len(rows.window[number])

    def place(self) -> Tensor:
        """See `mmtrain.types.Step`."""
        return torch.arange(self._first, self._first + self._size, device=self.everything.draws.device)

    def vectors(self, task: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `mmtrain.types.Step`."""
        return self.rows.vectors(task, own)

    def paired(self, view: View, places: Mapping[str, Tensor]) -> View:
        """See `mmtrain.types.Step`."""
        if len(self.rows.window) > 1:
            return view.replaced({m: self.rows.contents(m, where) for m, where in places.items()})
        if world_size() > 1:
            return view.having({m: self.rows.features(view.encoded(m), where) for m, where in places.items()})
        return view.paired(dict(places))


def within_step(window: Sequence[Batch], tasks: Mapping[str, Task]) -> list[Batch]:
    """The micro-batches of a rank, told of their step if a task asks for it; all ranks do so at the same time."""
    pairing = [task for task in tasks.values() if isinstance(task, Pairs) and task.pairs_within_step()]
    if not pairing:
        return list(window)
    sources = {task.negatives_from for task in pairing}
    rows = StepRows(window, frozenset(sources & set(tasks)))
    return [replace(batch, step=StepPart(rows, number)) for number, batch in enumerate(window)]


def together(window: Sequence[Batch]) -> Batch:
    """The rows of several micro-batches with what is compared by: presence, keys, draws; no contents or targets."""
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


def _of_all(batch: Batch) -> Batch:
    gathered = batch.map(gather)
    return replace(gathered, ids=[""] * len(gathered.rows))


def _as_long(values: Tensor, length: int) -> Tensor:
    """(B, L, ...) -> (B, length, ...), filled up with zeros, which a mask hides."""
    return torch.cat([values, values.new_zeros(len(values), length - values.shape[1], *values.shape[2:])], dim=1)
