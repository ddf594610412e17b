"""Peak memory and time of the contrastive loss with its gradients, in chunks and at once.

    python scripts/benchmark_contrastive.py [--gpu] [SIZE ...]

Both directions of InfoNCE over SIZE pairs of 256-wide features (8,192 and 32,768 by default), each in its own process.
At once, the loss keeps several SIZE x SIZE matrices. A size is skipped if they exceed the free memory.
"""

import json
import os
import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.contrastive import Related, by_chunks, info_nce

SIZES = (8192, 32768)
CHUNKS = (256, 1024, 4096)
WIDTH = 256
MATRICES = 7  # approximate number of float32 SIZE x SIZE matrices if the loss is computed at once


def direction(queries: Tensor, keys: Tensor, scale: Tensor, *, chunk: int) -> Tensor:
    """The mean of InfoNCE of queries against keys, as `mmtrain.tasks.contrastive` computes it."""
    ids = torch.arange(1, len(keys) + 1, device=keys.device)
    valid = torch.ones_like(ids, dtype=torch.bool)
    related = Related(ids, ids, ids)

    def block(queries: Tensor, asked: Tensor, valid_queries: Tensor) -> tuple[Tensor, Tensor]:
        return info_nce(queries, keys, related(asked), scale=scale, valid_queries=valid_queries, valid_keys=valid)

    total, count = by_chunks(block, (queries, ids, valid), chunk=chunk)
    return total / count


def peak_memory(device: str) -> int:
    """The peak of memory of this process, on the GPU or in RAM."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def now(device: str) -> float:
    """Seconds, after a GPU has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(size: int, chunk: int, device: str) -> dict[str, float]:
    """In this process: seconds of forward and backward, additional MiB, loss, and the norm of a gradient."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        F.normalize(torch.randn(size, WIDTH, generator=generator), dim=1).to(device).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(10.0, device=device, requires_grad=True)
    direction(left[:16], right[:16], scale, chunk=8).backward()  # one-time setup of torch is not measured
    left.grad = None
    before, started = peak_memory(device), now(device)
    loss = (direction(left, right, scale, chunk=chunk) + direction(right, left, scale, chunk=chunk)) / 2
    loss.backward()
    seconds = now(device) - started
    assert left.grad is not None
    return {
        "seconds": seconds,
        "mib": (peak_memory(device) - before) / 2**20,
        "loss": float(loss.detach()),
        "grad_norm": float(left.grad.norm()),
    }


def free_memory(device: str) -> int:
    """Bytes."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main(sizes: list[int], device: str) -> None:
    """Measure each case in its own process, and print the table."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    table = Table(title=f"InfoNCE, both directions, {WIDTH} wide, float32, {where}")
    for heading in ("pairs", "chunk", "peak memory", "seconds", "loss", "norm of a gradient"):
        table.add_column(heading, justify="right")
    free = free_memory(device)
    for size in sizes:
        for chunk in (*CHUNKS, size):
            if chunk == size and MATRICES * 4 * size**2 > free:
                table.add_row(f"{size:,}", "at once", f"about {MATRICES * 4 * size**2 / 2**30:.0f} GiB: skipped")
                continue
            command = [sys.executable, __file__, "--one", str(size), str(chunk), device]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            table.add_row(
                f"{size:,}",
                "whole" if chunk == size else f"{chunk:,}",
                f"{done['mib']:,.0f} MiB",
                f"{done['seconds']:.3g}",
                f"{done['loss']:.6f}",
                f"{done['grad_norm']:.6g}",
            )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["--one"]:
        print(json.dumps(measure(int(given[1]), int(given[2]), given[3])))
    else:
        sizes = [int(size) for size in given if size != "--gpu"]
        main(sizes or list(SIZES), "cuda" if "--gpu" in given else "cpu")
