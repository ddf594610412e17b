"""trainer.precision=bf16-true: weights, gradients and moments in 16 bits, and what must not be in 32.

Lightning's own plugin turns everything into bfloat16, metrics and targets among it, and makes it the type of every new
tensor. Here it is the networks' weights and inputs alone. Temperatures and other scalars stay in 32 bits, and so do
batch norms, whose running means would not move; losses are computed in 32 bits wherever they are computed.
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


class HalfWeights(HalfPrecision):
    """Of bfloat16."""

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        """The networks of a LightningModule; its metrics stay."""
        to_half(module.get_submodule("model"))
        return module

    def convert_input(self, data: Any) -> Any:
        """The contents of batches; masks and targets stay."""
        return [half_inputs(batch) for batch in data] if isinstance(data, list) else data

    def forward_context(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        """New tensors have the type that they are asked to have."""
        return nullcontext()


def to_half(model: nn.Module) -> None:
    """Weights into bfloat16, but for scalars and batch norms."""
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
    """The same batch with contents in bfloat16."""

    def half(padded: Padded) -> Padded:
        values = padded.values
        return Padded(values.to(torch.bfloat16) if values.is_floating_point() else values, padded.mask)

    return replace(batch, inputs={m: half(padded) for m, padded in batch.inputs.items()})
