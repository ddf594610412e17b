"""A region without autocast, also where there is none: a plan runs the model on the meta device."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Within it operations run in the type of what they are given.

    Args:
        like: on the device of the region.
    """
    if like.is_meta:  # a plan casts by a function mode, see mmtrain/plan/watch.py
        return torch._C.DisableTorchFunction()
    return torch.autocast(like.device.type, enabled=False)
