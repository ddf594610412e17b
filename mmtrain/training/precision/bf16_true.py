"""trainer.precision=bf16-true: weights, gradients and moments in 16 bits, with exceptions in 32 bits.

Lightning's own plugin converts everything to bfloat16, including metrics and targets, and makes it the default dtype.
Here only weights and inputs of the networks are converted. Temperatures and other scalars keep 32 bits, and also batch
norms, whose running means would not change. Losses are computed in 32 bits.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning.plugins.precision import HalfPrecision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.types import Batch, Padded

NAME = "bf16-true"


class BF16TruePrecision(HalfPrecision):
    """The plugin for bfloat16 weights."""

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert the networks of a LightningModule, but not its metrics."""
        to_half(module.get_submodule("model"))
        return module

    def convert_input(self, data: Any) -> Any:
        """Convert the inputs of batches, but not masks and targets."""
        return [half_inputs(batch) for batch in data] if isinstance(data, list) else data

    def forward_context(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        """Keep the default dtype of new tensors."""
        return nullcontext()


def to_half(model: nn.Module) -> None:
    """Convert weights to bfloat16, except scalars and batch norms."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point() and parameter.ndim > 0:
                parameter.data = parameter.data.to(torch.bfloat16)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and buffer.ndim > 0:
                setattr(module, name, buffer.to(torch.bfloat16))


def half_inputs(batch: Batch) -> Batch:
    """The same batch with inputs in bfloat16."""

    def half(padded: Padded) -> Padded:
        values = padded.values
        return Padded(values.to(torch.bfloat16) if values.is_floating_point() else values, padded.mask)

    return replace(batch, inputs={m: half(padded) for m, padded in batch.inputs.items()})
