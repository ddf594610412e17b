"""optimizer.fused: one kernel for all weights, which is faster on a GPU and changes only the order of sums.

Unlike in torch, a resumed run keeps its own setting. Torch would restore that of the checkpoint, whose machine may have
been another.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def resolve_fused(fused: bool | str, groups: Sequence[dict[str, Any]]) -> bool:
    """The value of `auto` for parameter groups: true if all of them are on a GPU.

    >>> import torch
    >>> resolve_fused("auto", [{"params": [torch.zeros(3)]}]), resolve_fused(True, [{"params": [torch.zeros(3)]}])
    (False, True)
    """
    parameters: list[Tensor] = [p for group in groups for p in group["params"]]
    if any(p.is_meta for p in parameters):  # in a plan, where no kernel runs
        return False
    return all(p.is_cuda for p in parameters) if isinstance(fused, str) else fused


def pin_fused_on_load(optimizer: Optimizer, fused: bool) -> None:
    """Keep the setting of this run when a checkpoint is loaded."""

    def ours(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"param_groups": [group | {"fused": fused} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(ours)
