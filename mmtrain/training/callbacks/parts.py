"""The table of components: class, output shape and number of parameters."""

from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import nn

from mmtrain.model import MultimodalModel
from mmtrain.types import Batch, Features


def log_model_summary(model: MultimodalModel, example: Batch) -> list[dict[str, Any]]:
    """Run an example through the model, and record each component's output shape, with B for the batch size."""
    shapes: dict[str, str] = {}
    named = _parts(model)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            # an encoder gets only the rows with its modality
            shapes.setdefault(name, _shape(out, len(inputs[0] if torch.is_tensor(inputs[0]) else example)))

        return hook

    hooks = [part.register_forward_hook(note(name)) for name, part in named.items()]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        model(example)
    for module, mode in modes.items():  # separately: some may be in evaluation mode, such as a frozen norm
        module.training = mode
    for hook in hooks:
        hook.remove()
    return [
        {
            "part": name,
            "what": type(part).__name__,
            "output": shapes.get(name, ""),
            "parameters": sum(p.numel() for p in part.parameters()),
            "trainable": sum(p.numel() for p in part.parameters() if p.requires_grad),
        }
        for name, part in named.items()
    ]


def model_summary(parts: list[dict[str, Any]]) -> Table:
    """The components as a table for the terminal."""
    table = Table(title="parts", title_justify="left", title_style="bold")
    for column in ("part", "what", "output"):
        table.add_column(column)
    for column in ("parameters", "trainable"):
        table.add_column(column, justify="right")
    for part in parts:
        table.add_row(part["part"], part["what"], part["output"], f"{part['parameters']:,}", f"{part['trainable']:,}")
    table.add_section()
    sums = [sum(part[column] for part in parts) for column in ("parameters", "trainable")]
    table.add_row("sum", "", "", *(f"{s:,}" for s in sums))
    return table


def _parts(model: MultimodalModel) -> dict[str, nn.Module]:
    named = {f"encoder.{m}": part for m, part in model.encoders.items()}
    if model.fusion is not None:
        named["fusion"] = model.fusion
    return named | {f"task.{name}": part for name, part in model.tasks.items()}


def _shape(out: Any, size: int) -> str:
    if isinstance(out, torch.Tensor):
        dims = ["B" if n == size and i == 0 else str(n) for i, n in enumerate(out.shape)]
        return f"({', '.join(dims)})"
    if isinstance(out, Features):
        return _shape(out.tokens, size)
    if isinstance(out, dict):
        return ", ".join(f"{name} {_shape(value, size)}" for name, value in out.items())
    return _shape(out[0], size)
