"""Fully sharded data parallelism (2004.13336, 2304.11277) with torch's FSDP2: each rank keeps a shard of every block.

The matrices of blocks are sharded. Blocks are elements of module lists in encoders, fusion and tasks. They are gathered
when their block runs, forward or backward, and resharded afterwards. Everything else is small (norms, biases,
positions, temperatures, modules outside of blocks). It is replicated on every rank, and its gradients are reduced once
per step.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mmtrain.distributed import all_reduce_sum, world_size


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Elements of module lists, the outermost ones. A list of lists has the elements of the inner lists."""
    blocks: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():  # outermost first
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            blocks += [block for block in module if not isinstance(block, nn.ModuleList)]
            inside |= {id(m) for block in module if not isinstance(block, nn.ModuleList) for m in block.modules()}
    return blocks


def matrices_of(block: nn.Module) -> list[nn.Parameter]:
    """The parameters of a block that are sharded."""
    return [p for p in block.parameters() if p.ndim >= 2]


def shard(model: nn.Module, mesh: DeviceMesh, *, gathered_in: torch.dtype | None) -> None:
    """Shard a model in place. A sharded block is not sharded again.

    Args:
        model: with the same weights on every rank.
        mesh: one-dimensional mesh of the ranks.
        gathered_in: dtype of gathered matrices; None for their own.
    """
    double = all(p.dtype is torch.float64 for p in model.parameters())
    sums_in = torch.float64 if double else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=gathered_in, reduce_dtype=sums_in, cast_forward_inputs=False)
    for block in blocks_of(model):
        matrices = {id(p) for p in matrices_of(block)}
        if matrices and not isinstance(block, FSDPModule):
            rest = {p for p in block.parameters() if id(p) not in matrices}
            fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=rest)


def is_sharded(model: nn.Module) -> bool:
    """Whether the model is sharded."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


@contextmanager
def no_gradient_sync(model: nn.Module) -> Iterator[None]:
    """A backward pass without reduction of gradients, which are reduced with those of a later one."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        for module in sharded:
            module.set_requires_gradient_sync(True)


def all_reduce_unsharded(model: nn.Module) -> None:
    """Average the gradients of replicated parameters over ranks. Those of shards are already reduced."""
    unsharded = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    for dtype in dict.fromkeys(p.dtype for p in unsharded):
        same_dtype = [p for p in unsharded if p.dtype is dtype]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in same_dtype])
        dist.all_reduce(flat)
        flat /= world_size()
        for p, part in zip(same_dtype, flat.split([p.numel() for p in same_dtype]), strict=True):
            if p.grad is not None:
                p.grad.copy_(part.view_as(p))


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors, over all ranks if they are sharded; equal on all ranks."""
    shares = [t.to_local() for t in tensors if isinstance(t, DTensor)]
    unsharded = _norm([t for t in tensors if not isinstance(t, DTensor)])
    if not shares:
        return unsharded
    squared = all_reduce_sum(_norm(shares).square())
    return (squared + unsharded.to(squared.device).square()).sqrt()


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    if all(t.dtype not in (torch.bfloat16, torch.float16) for t in tensors):
        return torch.nn.utils.get_total_norm(list(tensors))
    norms = [torch.linalg.vector_norm(t, dtype=torch.float32) for t in tensors]  # 16 bits have only two or three digits
    return torch.linalg.vector_norm(torch.stack(norms))


def clip(parameters: Sequence[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale gradients down if their common norm is too large.

    Args:
        parameters: with gradients.
        max_norm: maximum of the norm.
        norm: current norm.
    """
    torch.nn.utils.clip_grads_with_norm_([p for p in parameters if not isinstance(p.grad, DTensor)], max_norm, norm)
    for gradient in [p.grad for p in parameters if isinstance(p.grad, DTensor)]:
        gradient.to_local().mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))


def keep_shards(model: nn.Module) -> None:
    """Reshard weights that a forward pass without a backward pass has gathered, before they are changed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Complete weights on the CPU of the first rank, and nothing on the others. All ranks must call it."""
    if not is_sharded(module):
        return dict(module.state_dict())
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(module, options=options))


def load_weights(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load complete weights. Each rank keeps its shard."""
    if not is_sharded(module):
        module.load_state_dict(state_dict)
        return
    options = StateDictOptions(full_state_dict=True, strict=True)
    set_model_state_dict(module, dict(state_dict), options=options)
