"""trainer.precision=16-mixed with sharded weights: all ranks skip a step if one has a gradient that is not finite.

Torch's scaler checks all gradients in one call, which does not support a mixture of sharded and replicated gradients.
It also does not see an overflow in the shard of another rank. The other ranks would step, and the scales would differ.
"""

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mmtrain.distributed import world_size

NAMES = ("16", "16-mixed")  # of trainer.precision


def sharded_half_precision(accelerator: str) -> MixedPrecision:
    """Create Lightning's precision plugin with a scaler that the ranks share.

    Args:
        accelerator: accelerator of the Trainer.
    """
    device = "cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda"
    return MixedPrecision("16-mixed", device, ShardedGradScaler(device))


class ShardedGradScaler(torch.amp.GradScaler):
    """A scaler with which either every rank takes a step or none."""

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        results = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        local = [g.to_local() if isinstance(g, DTensor) else g for g in results]
        assert all(g.dtype is not torch.float16 for g in local)  # weights have 32 bits
        for dtype in dict.fromkeys(g.dtype for g in local):
            same_dtype = [g for g in local if g.dtype is dtype]
            torch._amp_foreach_non_finite_check_and_unscale_(same_dtype, found_inf, inv_scale)
        if world_size() > 1:
            dist.all_reduce(found_inf, op=dist.ReduceOp.MAX)
        return {found_inf.device: found_inf}
