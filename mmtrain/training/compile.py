"""trainer.compile: blocks through torch.compile, and what cannot be compiled runs as it is, with a line that says so.

A region is what is compiled by itself: the blocks that a list holds, in encoders, fusion and tasks; an encoder or a
fusion without such a list is one region. Blocks of one kind share their machine code, whatever the depth. A region is
one graph or none, so that what fails has done nothing yet and runs uncompiled from its beginning.

It is the `forward` of a block that is replaced, on the instance: names of weights stay, a copy of the model runs with
its own weights, and hooks (those of FSDP2 among them) stay outside of the graph.
"""

import functools
import os
import types
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit, TorchDynamoException

from mmtrain.io.escape import print_escaped
from mmtrain.model import MultimodalModel
from mmtrain.training.fsdp.shard import blocks_of

# In training and in evaluation, with one row and with several, with and without a mask, each rate of stochastic depth
# by itself: torch's own limit of 8 is that of one block with one kind of batch.
VERSIONS = 64


def compile_regions(model: MultimodalModel, *, backend: str, tell: Callable[[str], None]) -> None:
    """Compile what a model runs most. Nothing is computed yet: each region is compiled when it first runs.

    Args:
        model: its weights stay where they are.
        backend: of torch.compile.
        tell: is told, once for each region, what runs uncompiled and why.
    """
    torch._dynamo.config.recompile_limit = VERSIONS
    torch._dynamo.config.optimize_ddp = False  # it would cut a region where a bucket of gradients ends
    torch._inductor.config.fallback_random = True  # the draws of a run do not depend on how it is computed
    torch._functorch.config.donated_buffer = False  # a balance may take several gradients of one forward pass
    torch._functorch.config.force_non_lazy_backward_lowering = True  # else the backward pass fails in its midst
    for name, modules in regions_of(model).items():
        plain = {module: cast(types.MethodType, module.forward).__func__ for module in modules}
        # a list may hold several kinds
        regions = {function: _Region(name, function, backend=backend, tell=tell) for function in plain.values()}
        for module, function in plain.items():
            module.forward = types.MethodType(regions[function], module)


def regions_of(model: MultimodalModel) -> dict[str, list[nn.Module]]:
    """The modules of each region, by the name of the list that holds them, or of the part."""
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, list[nn.Module]] = {}
    for block in blocks_of(model):
        found.setdefault(names[block].rpartition(".")[0], []).append(block)
    parts = [*model.encoders.values(), *([] if model.fusion is None else [model.fusion])]
    return found | {names[part]: [part] for part in parts if not blocks_of(part)}


def say(line: str) -> None:
    """One process of each machine does, because a machine may lack a compiler."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print_escaped(line, stderr=True)


class _Region:
    """Takes the place of the forward function of modules of one kind."""

    def __init__(self, name: str, plain: Callable[..., Any], *, backend: str, tell: Callable[[str], None]) -> None:
        functools.update_wrapper(self, plain)  # others ask for its signature
        self.name = name
        self.plain = plain
        self.compiled = torch.compile(plain, backend=backend, dynamic=True, fullgraph=True)
        self.tell = tell
        self.is_compiled = True

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.is_compiled:
            try:
                return self.compiled(module, *args, **kwargs)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                self.is_compiled = False
                self.tell(f"trainer.compile: {self.name} runs uncompiled: {_reason(error)}")
        return self.plain(module, *args, **kwargs)


def _reason(error: Exception) -> str:
    inner = error.inner_exception if isinstance(error, BackendCompilerFailed) else error
    return str(inner).strip().splitlines()[0]
