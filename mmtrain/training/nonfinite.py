"""Steps whose loss or gradient is not finite are skipped, counted and explained.

A skipped step changes only the number of steps. Weights, the optimizer's state, batch norm statistics, and the state of
balances and queues stay as they were. Too many skipped steps in a row end training.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.layers.finetuning import batchnorm_frozen
from mmtrain.model import MultimodalModel
from mmtrain.types import Batch


class Diverged(Exception):
    """Too many steps in a row were not finite; the message says which tensor was the first."""


@dataclass(frozen=True)
class SkippedStep:
    """A step that was skipped.

    Attributes:
        step: its number, from 1.
        losses: by task; one of them may be NaN or infinite.
        grad_norm: of all gradients.
        first: the first tensor that is not finite, as a phrase.
        ids: of the samples in which it was found.
        in_row: how many steps in a row were skipped, this one included.
    """

    step: int
    losses: dict[str, float]
    grad_norm: float
    first: str
    ids: list[str]
    in_row: int

    def record(self) -> dict[str, Any]:
        """Return a row for a JSON file. JSON has no NaN, so a number that is not finite is a string."""
        values = {name: _number(value) for name, value in self.losses.items()}
        return {
            "step": self.step,
            "first": self.first,
            "ids": self.ids,
            "losses": values,
            "grad_norm": _number(self.grad_norm),
            "in_row": self.in_row,
        }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


class BatchNormState:
    """A copy of the batch norm statistics, to undo a step."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
        self._kept = [(b, b.clone()) for norm in norms for b in norm.buffers()]

    def restore(self) -> None:
        """Write the copy back."""
        for buffer, before in self._kept:
            buffer.copy_(before)


class NonFiniteCause(NamedTuple):
    """The first tensor of a step that is not finite. Of those of several ranks, the lowest place is the cause.

    Attributes:
        place: 0 a weight, 1 an input, 2 a module's output, 3 a loss, 4 a gradient or a task's weight, 5 their norm.
        first: the first tensor that is not finite, as a phrase.
        ids: of the samples in which it was found; those of the complete step if they are not known, [] for a weight.
    """

    place: int
    first: str
    ids: list[str]


def explain(model: MultimodalModel, window: Sequence[Batch], losses: Mapping[str, float]) -> NonFiniteCause:
    """Return the first tensor that is not finite on this rank, and the samples in which it was found.

    Weights are checked first, then inputs, then the output of each module in the order in which they run, then losses
    and gradients.

    Args:
        model: with the gradients of the step.
        window: the micro-batches of the step on this rank.
        losses: by task.
    """
    for name, tensor in model.named_parameters():
        if result := _count(tensor):
            return NonFiniteCause(0, f"{result:,} of {tensor.numel():,} values of {name}", [])
    ids = [id for batch in window for id in batch.ids if id]
    for batch in window:
        for modality, (values, _) in batch.inputs.items():
            if rows := _rows(values, batch, present=batch.present[modality]):
                return NonFiniteCause(1, f"the input {modality}", rows)
    for batch in window:
        if found_at := _first_output(model, batch):
            return NonFiniteCause(2, found_at[0], found_at[1] or ids)
    for name, loss in losses.items():
        if not math.isfinite(loss):
            return NonFiniteCause(3, f"the loss of {name}", ids)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and _count(parameter.grad):
            return NonFiniteCause(4, f"the gradient of {name}", ids)
    return NonFiniteCause(5, "the norm of all gradients", ids)


def describe_weights(model: nn.Module) -> str:
    """Describe the first weight that is not finite, or else the largest one; of a sharded weight, this rank's shard.

    It is not a collective operation, because a single rank may call it.
    """
    largest, name_of_largest = 0.0, ""
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if result := _count(tensor):
            return f"the first weight that is not finite: {result:,} of {tensor.numel():,} values of {name}"
        size = float(tensor.abs().max()) if tensor.numel() else 0.0
        if size > largest:
            largest, name_of_largest = size, name
    return f"every weight is finite; the largest is {largest:.3g}, in {name_of_largest}"


def _first_output(model: MultimodalModel, batch: Batch) -> tuple[str, list[str]] | None:
    """The first module whose output is not finite, and the samples, if the rows of the output are samples."""
    results: list[tuple[str, list[str]]] = []
    plain = torch.compiler.set_stance("force_eager")  # hooks do not run inside compiled code
    with _watched(model, batch, results), torch.no_grad(), batchnorm_frozen(_norms(model)), plain:
        view = model.view(batch)
        for name in model.tasks:
            view.predictions(name)
            if results:
                break
        if not results:
            return None
        name, rows = results[0]
        for modality in [] if rows else model.encoders:  # inside an encoder, rows are only those with the modality
            rows = rows or _rows(view.encoded(modality).tokens, batch, present=batch.present[modality])
        return name, rows


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def _watched(model: nn.Module, batch: Batch, records: list[tuple[str, list[str]]]) -> Iterator[None]:
    """Record the first module whose output is not finite. An inner module ends first, so it is recorded first."""

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not records and _count(tensor):
                    records.append((f"what {name} ({type(module).__name__}) gives", _rows(tensor, batch)))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)


def _count(tensor: Tensor) -> int:
    return int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0


def _rows(values: Tensor, batch: Batch, *, present: Tensor | None = None) -> list[str]:
    """Ids of the samples whose row is not finite; [] if rows are not samples, or if none of them is finite."""
    if not values.is_floating_point() or values.ndim == 0 or len(values) != len(batch.ids):
        return []
    bad = ~values.isfinite().reshape(len(values), -1).all(dim=1)
    bad = bad if present is None else bad & present
    if bad.all():
        return []
    return [batch.ids[row] for row in bad.nonzero().flatten().tolist() if batch.ids[row]]
