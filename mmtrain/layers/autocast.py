"""Where and in what type numbers are computed that 16 bits do not hold, on the meta device of a plan, too."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Within it operations run in the type of what they are given.

    Args:
        like: on the device of the region.
    """
    if like.is_meta:  # a plan casts by a function mode, see mmtrain/modes/plan/watch.py
        return torch._C.DisableTorchFunction()
    return torch.autocast(like.device.type, enabled=False)


def upcast(tensor: Tensor) -> Tensor:
    """Float32 of 16 bits; float64 stays.

    >>> upcast(torch.zeros(1, dtype=torch.bfloat16)).dtype, upcast(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
