"""Steps whose loss or gradient is not finite: passed over, counted, and explained.

Such a step changes nothing but the number of steps: no weight, no moment of the optimizer, no statistic of a batch
norm, nothing that a balance or a queue keeps. Too many in a row end training.
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

from mmtrain.layers.finetuning import without_statistics
from mmtrain.model import MultimodalModel
from mmtrain.types import Batch


class Diverged(Exception):
    """Too many steps in a row were not finite; the message says which tensor was the first."""


@dataclass(frozen=True)
class Skipped:
    """A step that was passed over.

    Attributes:
        step: its number, from 1.
        losses: by task; one of them may be NaN or infinite.
        grad_norm: of all gradients.
        first: which tensor was the first that is not finite.
        ids: the samples that it began with.
        in_row: how many were passed over without one between that was not, this one with them.
    """

    step: int
    losses: dict[str, float]
    grad_norm: float
    first: str
    ids: list[str]
    in_row: int

    def record(self) -> dict[str, Any]:
        """For a line of JSON, which knows no NaN: what is not finite is a word."""
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


class Statistics:
    """What batch norms have seen, put aside so that a step can be undone."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
        self._kept = [(b, b.clone()) for norm in norms for b in norm.buffers()]

    def restore(self) -> None:
        """Put them back."""
        for buffer, before in self._kept:
            buffer.copy_(before)


class Cause(NamedTuple):
    """Where it began. Of several ranks' the lowest place is the nearest to the beginning.

    Attributes:
        place: 0 a weight, 1 an input, 2 what a module gives, 3 a loss, 4 a gradient or a task's weight, 5 their norm.
        first: the first tensor that is not finite, in words.
        ids: the samples that it began with; all of the step where none stands out, none where it is a weight.
    """

    place: int
    first: str
    ids: list[str]


def explain(model: MultimodalModel, window: Sequence[Batch], losses: Mapping[str, float]) -> Cause:
    """Which tensor is the first that is not finite on this rank, and the samples that it began with.

    Weights are looked at first, then inputs, then what each module gives, in the order in which they run. Gradients are
    those of the step, still in place.

    Args:
        model: after a backward pass.
        window: the micro-batches of the step on this rank.
        losses: by task.
    """
    for name, tensor in model.named_parameters():
        if found := _count(tensor):
            return Cause(0, f"{found:,} of {tensor.numel():,} values of {name}", [])
    ids = [id for batch in window for id in batch.ids if id]
    for batch in window:
        for modality, (values, _) in batch.inputs.items():
            if rows := _rows(values, batch, there=batch.present[modality]):
                return Cause(1, f"the input {modality}", rows)
    for batch in window:
        if found_at := _first_output(model, batch):
            return Cause(2, found_at[0], found_at[1] or ids)
    for name, loss in losses.items():
        if not math.isfinite(loss):
            return Cause(3, f"the loss of {name}", ids)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and _count(parameter.grad):
            return Cause(4, f"the gradient of {name}", ids)
    return Cause(5, "the norm of all gradients", ids)


def weights_in_words(model: nn.Module) -> str:
    """Which weight is the first that is not finite, or which is the largest; of a sharded one this rank's part.

    It needs no other rank, because one rank alone may ask.
    """
    largest, name_of_largest = 0.0, ""
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if found := _count(tensor):
            return f"the first weight that is not finite: {found:,} of {tensor.numel():,} values of {name}"
        size = float(tensor.abs().max()) if tensor.numel() else 0.0
        if size > largest:
            largest, name_of_largest = size, name
    return f"every weight is finite; the largest is {largest:.3g}, in {name_of_largest}"


def _first_output(model: MultimodalModel, batch: Batch) -> tuple[str, list[str]] | None:
    """The first module, as they run, that gives something not finite; the samples if rows of it are samples."""
    found: list[tuple[str, list[str]]] = []
    plain = torch.compiler.set_stance("force_eager")  # nobody can look inside of what is compiled
    with _watched(model, batch, found), torch.no_grad(), without_statistics(_norms(model)), plain:
        view = model.view(batch)
        for name in model.tasks:
            view.predictions(name)
            if found:
                break
        if not found:
            return None
        name, rows = found[0]
        for modality in [] if rows else model.encoders:  # what is inside an encoder has the rows that are there alone
            rows = rows or _rows(view.encoded(modality).tokens, batch, there=batch.present[modality])
        return name, rows


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def _watched(model: nn.Module, batch: Batch, found: list[tuple[str, list[str]]]) -> Iterator[None]:
    """Every module notes the first output that is not finite; the innermost ends first, and so comes first."""

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not found and _count(tensor):
                    found.append((f"what {name} ({type(module).__name__}) gives", _rows(tensor, batch)))

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


def _rows(values: Tensor, batch: Batch, *, there: Tensor | None = None) -> list[str]:
    """Ids of the samples whose row is not finite; none where rows are no samples, or all of them are so."""
    if not values.is_floating_point() or values.ndim == 0 or len(values) != len(batch.ids):
        return []
    bad = ~values.isfinite().reshape(len(values), -1).all(dim=1)
    bad = bad if there is None else bad & there
    if bad.all():
        return []
    return [batch.ids[row] for row in bad.nonzero().flatten().tolist() if batch.ids[row]]
