"""Lightning's strategy for sharded weights, with checkpoints like those of any other run.

They are read and written by the same code, with complete tensors, and with moments in the order of the optimizer's
parameters. Any number of ranks can resume them. Lightning's own implementation does not use the checkpoint plugin, and
orders moments as in the model.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mmtrain.distributed import broadcast_object
from mmtrain.training.fsdp.shard import load_weights

TBroadcast = TypeVar("TBroadcast")


@runtime_checkable
class GroupsParameters(Protocol):
    """What the strategy needs from the LightningModule."""

    def parameter_groups(self) -> list[tuple[float, bool, list[nn.Parameter]]]:
        """Trainable parameters in the order of checkpoints. Each group has the same options."""
        ...


class ShardedStrategy(ModelParallelStrategy):
    """The strategy for a number of ranks, where each rank keeps a shard.

    Args:
        num_ranks: number of all ranks.
    """

    def __init__(self, *, num_ranks: int) -> None:
        super().__init__(data_parallel_size=num_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: by `load_optimizer_state_dict`."""
        return True

    def broadcast(self, obj: TBroadcast, src: int = 0) -> TBroadcast:
        """Broadcast as JSON. Lightning would unpickle what another rank sends."""
        sent: TBroadcast = broadcast_object(obj, src)
        return sent

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint on every rank."""
        read: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        return read

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load complete weights. Each rank keeps its shard."""
        assert self.lightning_module is not None
        load_weights(self.lightning_module, checkpoint["state_dict"])

    def optimizer_state(self, optimizer: Optimizer | LightningOptimizer) -> dict[str, Any]:
        """The state as in a run without sharding, with complete tensors on the CPU. Every rank must call it."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = {id(p): group for group in plain.param_groups for p in group["params"]}
        state: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        first = 0
        for parameters in self._groups():
            numbers = list(range(first, first + len(parameters)))
            kept = {n: plain.state[p] for n, p in zip(numbers, parameters, strict=True) if p in plain.state}
            state |= {number: _whole(result) for number, result in kept.items()}
            groups.append({**options[id(parameters[0])], "params": numbers})
            first += len(parameters)
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load complete moments. Each rank keeps its shard."""
        ordered = [p for parameters in self._groups() for p in parameters]
        for optimizer, result in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            kept = {id(ordered[number]): state for number, state in result["state"].items()}
            options = {id(ordered[number]): group for group in result["param_groups"] for number in group["params"]}
            state: dict[int, dict[str, Any]] = {}
            groups: list[dict[str, Any]] = []
            for group in optimizer.param_groups:
                first = sum(len(before["params"]) for before in groups)
                numbers = range(first, first + len(group["params"]))
                for number, p in zip(numbers, group["params"], strict=True):
                    if id(p) in kept:
                        state[number] = _shares(kept[id(p)], p)
                groups.append({**options[id(group["params"][0])], "params": list(numbers)})
            optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _groups(self) -> list[list[nn.Parameter]]:
        assert isinstance(self.lightning_module, GroupsParameters)
        return [parameters for _, _, parameters in self.lightning_module.parameter_groups()]


def _whole(state: Mapping[str, Any]) -> dict[str, Any]:
    tensors = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in state.items()}
    return {name: t.cpu() if isinstance(t, Tensor) else t for name, t in tensors.items()}


def _shares(state: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Shard states that have the shape of their parameter."""
    if not isinstance(parameter, DTensor):
        return dict(state)
    return {
        name: distribute_tensor(t.to(parameter.device), parameter.device_mesh, parameter.placements)
        if isinstance(t, torch.Tensor) and t.shape == parameter.shape
        else t
        for name, t in state.items()
    }
