"""optimizer.fused: one kernel for all weights. It is faster on a GPU and changes no more than the order of sums.

Unusual here: a run that goes on from a checkpoint keeps its own choice. torch would take that of the checkpoint, whose
machine may have been another.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def settled(fused: bool | str, groups: Sequence[dict[str, Any]]) -> bool:
    """What `auto` means for these groups of parameters: yes, where all of them lie on a GPU.

    >>> import torch
    >>> settled("auto", [{"params": [torch.zeros(3)]}]), settled(True, [{"params": [torch.zeros(3)]}])
    (False, True)
    """
    parameters: list[Tensor] = [p for group in groups for p in group["params"]]
    if any(p.is_meta for p in parameters):  # of a plan: no kernel computes there
        return False
    return all(p.is_cuda for p in parameters) if isinstance(fused, str) else fused


def keep_choice(optimizer: Optimizer, fused: bool) -> None:
    """Whatever checkpoint is loaded, compute as this run does."""

    def ours(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"param_groups": [group | {"fused": fused} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(ours)
