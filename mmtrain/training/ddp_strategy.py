"""Lightning's strategy for replicated weights, and the process group of ranks on one machine."""

import os
from typing import TypeVar

from pytorch_lightning.strategies import DDPStrategy, ParallelStrategy
from torch import distributed as dist
from torch.distributed.constants import default_pg_timeout

from mmtrain.distributed import broadcast_object
from mmtrain.training.launched_rank import RENDEZVOUS

TBroadcast = TypeVar("TBroadcast")


class DDP(DDPStrategy):
    """DDP whose ranks send each other no pickles."""

    def __init__(self) -> None:
        # not static_graph: torch's reducer fails on steps of several micro-batches
        super().__init__(gradient_as_bucket_view=True)  # otherwise gradients are stored twice

    def broadcast(self, obj: TBroadcast, src: int = 0) -> TBroadcast:
        """Broadcast as JSON. Lightning would unpickle what another rank sends."""
        sent: TBroadcast = broadcast_object(obj, src)
        return sent


def join_by_file(strategy: object) -> None:
    """Create the process group of ranks that `mmtrain.cli.launch` started, without opening a port.

    Lightning uses an existing group. Ranks of torchrun and SLURM use Lightning's own.

    Args:
        strategy: strategy of the Trainer.
    """
    if RENDEZVOUS not in os.environ or not isinstance(strategy, ParallelStrategy) or dist.is_initialized():
        return
    device = strategy.root_device
    assert strategy.accelerator is not None
    strategy.accelerator.setup_device(device)
    dist.init_process_group(
        dist.get_default_backend_for_device(device),
        init_method=f"file://{os.environ[RENDEZVOUS]}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=default_pg_timeout,
        device_id=None if device.type == "cpu" else device,
    )
