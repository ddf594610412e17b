"""Real processes with a gloo group between them, for tests of what is distributed."""

import datetime
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing

SECONDS = 60  # a collective that waits longer is a hang
PRELOADED = ["pytest", "tests.runs", "tests.preload"]


def forking() -> ForkServerContext:
    """What starts processes that are forked from a server, which has imported torch and the model once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def on_ranks(world_size: int, work: Callable[..., Any], *args: Any, seconds: float = 2 * SECONDS) -> list[Any]:
    """Run `work(rank, *args)` in every process of a group; what each gave, by rank. It may take so many seconds.

    `work` is a function of a module that imports nothing slow.
    """
    with TemporaryDirectory() as folder:
        processes = [
            forking().Process(target=_enter, args=(rank, world_size, folder, work, args), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
        hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for rank in hanging:
            processes[rank].kill()
        errors = [path.read_text() for path in sorted(Path(folder).glob("*.error"))]
        assert not errors, "\n".join(errors)
        assert not hanging, f"ranks {hanging} hang"
        assert [process.exitcode for process in processes] == [0] * world_size
        return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(world_size)]


def _enter(rank: int, world_size: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/group",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    try:
        torch.save(work(rank, *args), f"{folder}/{rank}.pt")
    except Exception:
        Path(f"{folder}/{rank}.error").write_text(f"rank {rank}\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
