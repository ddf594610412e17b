"""The collectives that losses and training steps need. Without a process group each is the identity.

Objects are sent as JSON and never as pickles, because a rank with other code could run code on the others by a pickle.
"""

import json
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
    """Index of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes and prints for all. This is known before there is a process group.

    The command has removed a RANK that does not apply (`mmtrain.cli.rank_environment`).
    """
    return int(os.environ.get("RANK", "0")) == 0


def gather(tensor: Tensor) -> Tensor:
    """Return (B, ...) of every rank, in rank order, as (world * B, ...). No gradient; B must be equal on all ranks."""
    if world_size() == 1:
        return tensor
    out = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(out, tensor.contiguous())
    return torch.cat(out)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Gather as `gather`; gradients of all ranks for a row are summed on the rank that owns it."""
    if world_size() == 1:
        return tensor
    return _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """Own code, because torch's function for this is deprecated in 2.14 and its successor is not yet in 2.11."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.size = len(tensor)
        return gather(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient)[rank() * ctx.size :][: ctx.size]


def gather_rows(tensor: Tensor, places: Tensor) -> Tensor:
    """Return rows from all ranks, in rank order, with their gradient. Only the requested rows are sent.

    Args:
        tensor: (P, ...). P and the shape of a row are the same on every rank.
        places: (B,), int64, from 0 to world * P. B is the same on every rank.

    Returns:
        (B, ...).
    """
    if world_size() == 1:
        return tensor[places]
    return _GatherRows.apply(tensor, places)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Tensor) -> Tensor:
        requested = gather(places).view(world_size(), -1)
        owners = requested // len(tensor)
        ctx.size = len(tensor)
        ctx.sent = (requested % len(tensor))[owners == rank()]  # in the order of the receiving ranks
        ctx.num_sent = (owners == rank()).sum(dim=1).tolist()
        ctx.num_received = owners[rank()].bincount(minlength=world_size()).tolist()
        ctx.order = owners[rank()].argsort(stable=True)  # received rows are in the order of their owners
        out = tensor.new_empty(len(places), *tensor.shape[1:])
        out[ctx.order] = _swapped(tensor[ctx.sent], ctx.num_sent, ctx.num_received)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        came = _swapped(gradient[ctx.order], ctx.num_received, ctx.num_sent)
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_add(0, ctx.sent, came), None


def _swapped(rows: Tensor, num_sent: list[int], num_received: list[int]) -> Tensor:
    """Exchange rows: those for each rank in turn -> those from each rank in turn."""
    out = rows.new_empty(sum(num_received), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), num_received, num_sent)
    return out


def all_reduce_max(number: int, device: torch.device) -> int:
    """The largest number of any rank."""
    if world_size() == 1:
        return number
    out = torch.tensor(number, device=device)
    dist.all_reduce(out, dist.ReduceOp.MAX)
    return int(out)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over all ranks, without gradient."""
    out = tensor.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(out)
    return out


def gather_objects(mine: Any) -> list[Any]:
    """The objects of all ranks, in rank order: plain numbers, strings, lists and dicts, decoded from JSON.

    Raises:
        TypeError: for an object that JSON does not support.
    """
    if world_size() == 1:
        return [mine]
    data = _as_bytes(mine)
    sizes = gather(torch.tensor([len(data)], device=data.device)).tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=data.device)
    padded[: len(data)] = data
    return [_from_bytes(row[:size]) for row, size in zip(gather(padded[None]), sizes, strict=True)]


def broadcast_object(value: Any, src: int = 0) -> Any:
    """The object of rank `src`, on every rank, as `gather_objects`. A path becomes a string."""
    if world_size() == 1:
        return value
    data = _as_bytes(value if rank() == src else None)
    size = torch.tensor([len(data)], device=data.device)
    dist.broadcast(size, src)
    if rank() != src:
        data = torch.empty(int(size), dtype=torch.uint8, device=data.device)
    dist.broadcast(data, src)
    return _from_bytes(data)


def _as_bytes(value: Any) -> Tensor:
    """JSON, on the device of the group's backend."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    return torch.frombuffer(bytearray(json.dumps(value, default=os.fspath).encode()), dtype=torch.uint8).to(device)


def _from_bytes(data: Tensor) -> Any:
    return json.loads(data.cpu().numpy().tobytes())
