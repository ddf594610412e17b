"""trainer.precision=16-mixed where ranks keep shares: a gradient that is not finite on one rank is so for all.

torch's scaler asks for what is not finite in one call with all gradients, which takes no mixture of shares and of what
is whole; and what overflows in the share of one rank the others do not see. They would step, and the scales of the
ranks would part.
"""

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mmtrain.distributed import world_size

NAMES = ("16", "16-mixed")  # of trainer.precision


def shared_half(accelerator: str) -> MixedPrecision:
    """Lightning's precision of that name with a scaler that ranks share.

    Args:
        accelerator: of the Trainer.
    """
    device = "cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda"
    return MixedPrecision("16-mixed", device, SharedGradScaler(device))


class SharedGradScaler(torch.amp.GradScaler):
    """Every rank takes a step, or none does."""

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        local = [g.to_local() if isinstance(g, DTensor) else g for g in found]
        assert all(g.dtype is not torch.float16 for g in local)  # weights have 32 bits
        for dtype in dict.fromkeys(g.dtype for g in local):
            alike = [g for g in local if g.dtype is dtype]
            torch._amp_foreach_non_finite_check_and_unscale_(alike, found_inf, inv_scale)
        if world_size() > 1:
            dist.all_reduce(found_inf, op=dist.ReduceOp.MAX)
        return {found_inf.device: found_inf}
