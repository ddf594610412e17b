"""trainer.compile: torch.compile for blocks. What cannot be compiled runs uncompiled, which is reported.

A region is compiled separately: the blocks of a module list in encoders, fusion and tasks. An encoder or a fusion
without such a list is one region. Blocks of one kind share their compiled code, for any depth. A region is a single
graph or not compiled at all, so a failed region has had no side effects and runs uncompiled from its beginning.

The `forward` method of a block is replaced, on the instance. Names of weights are unchanged, a copy of the model uses
its own weights, and hooks (including those of FSDP2) stay outside of the graph.
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

# In training and in evaluation, with one row and with several, with and without a mask, and for each rate of stochastic
# depth. Torch's own limit of 8 is sufficient only for one block with one kind of batch.
VERSIONS = 64


def compile_regions(model: MultimodalModel, *, backend: str, tell: Callable[[str], None]) -> None:
    """Compile the regions of a model. Each region is compiled when it first runs.

    Args:
        model: its weights are not moved.
        backend: backend of torch.compile.
        tell: receives, once per region, what runs uncompiled and why.
    """
    torch._dynamo.config.recompile_limit = VERSIONS
    torch._dynamo.config.optimize_ddp = False  # it would split a region at the end of a gradient bucket
    torch._inductor.config.fallback_random = True  # random numbers do not depend on compilation
    torch._functorch.config.donated_buffer = False  # a balance may take several gradients of one forward pass
    torch._functorch.config.force_non_lazy_backward_lowering = True  # otherwise the backward pass fails halfway
    for name, modules in regions_of(model).items():
        plain = {module: cast(types.MethodType, module.forward).__func__ for module in modules}
        # a list may hold several kinds
        regions = {function: _Region(name, function, backend=backend, tell=tell) for function in plain.values()}
        for module, function in plain.items():
            module.forward = types.MethodType(regions[function], module)


def regions_of(model: MultimodalModel) -> dict[str, list[nn.Module]]:
    """The modules of each region, by the name of their list or component."""
    names = {module: name for name, module in model.named_modules()}
    results: dict[str, list[nn.Module]] = {}
    for block in blocks_of(model):
        results.setdefault(names[block].rpartition(".")[0], []).append(block)
    parts = [*model.encoders.values(), *([] if model.fusion is None else [model.fusion])]
    return results | {names[part]: [part] for part in parts if not blocks_of(part)}


def log_compilation(line: str) -> None:
    """Print on one process per machine, because a machine may not have a compiler."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print_escaped(line, stderr=True)


class _Region:
    """Replaces the forward function of modules of one kind."""

    def __init__(self, name: str, plain: Callable[..., Any], *, backend: str, tell: Callable[[str], None]) -> None:
        functools.update_wrapper(self, plain)  # its signature is inspected
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
