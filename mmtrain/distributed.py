"""The few collectives that losses and steps need. Without a process group each is the identity."""

import os
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process speaks and writes for all; known before there is a process group."""
    return int(os.environ.get("RANK", "0")) == 0


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of every rank, in rank order, as (world * B, ...). No gradient; B must agree."""
    if world_size() == 1:
        return tensor
    out = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(out, tensor.contiguous())
    return torch.cat(out)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """As `gather`; a gradient that any rank has for a row goes back to the rank that owns it, summed."""
    if world_size() == 1:
        return tensor
    return _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """Own code, because what torch has for this is deprecated in 2.14 and its successor is not yet in 2.11."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.size = len(tensor)
        return gather(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)[rank() * ctx.size :][: ctx.size]


def total(tensor: Tensor) -> Tensor:
    """The sum over all ranks, without gradient."""
    out = tensor.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(out)
    return out


def gather_objects(mine: Any) -> list[Any]:
    """What every rank has, in rank order; for what is small and rare, because it is pickled."""
    if world_size() == 1:
        return [mine]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, mine)
    return found
