"""Faults of the machine that a person can do something about: a killed worker, memory or a disk that is full.

An exit status of 2 says that the disk or a permission must be fixed first, 1 that the program or its machine failed.
"""

import re
import traceback
from pathlib import Path

import torch
from omegaconf import DictConfig

from mmtrain.distributed import rank, world_size
from mmtrain.run_files import explanation, optional_json
from mmtrain.sizes import readable

# gloo and NCCL say so
PEER_GONE = re.compile(
    r"Connection (reset|closed) by peer|remote process exited|Read error|ncclRemoteError", re.IGNORECASE
)
SHARED_MEMORY = re.compile(r"shared memory|/torch_\d|/dev/shm")


def explained(error: BaseException, cfg: DictConfig) -> str | None:
    """What happened and the mend; None for what is a fault of the program.

    Args:
        error: what ended the run.
        cfg: its configuration.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return _out_of_memory(str(error), cfg)
    text = str(error)
    if (of_files := explanation(error, f"run_dir={cfg.run_dir}")) is not None:
        return _of_shared_memory(error) or of_files
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return _worker_gone(f"{text} {error.__cause__ or ''}", cfg)  # torch says the signal in one of the two
    if isinstance(error, EOFError | ConnectionError) and _is_from_worker(error):  # it was just handing a batch over
        return _worker_gone("", cfg)
    if isinstance(error, RuntimeError) and world_size() > 1 and PEER_GONE.search(text):
        return (
            f"another process of this run is gone, and rank {rank()} with it; why, that one has said, if it could\n"
            "    go on with resume=auto"
        )
    return None


def status_of(error: BaseException) -> int:
    """The exit status: 2 when a disk or a permission is at fault, 1 for the program, its memory and its processes."""
    return 1 if explanation(error, "") is None else 2


def _of_shared_memory(error: BaseException) -> str | None:
    if SHARED_MEMORY.search(str(error)) is None:
        return None
    return (
        "/dev/shm: No space left on device: processes that load data hand batches over there\n"
        "    fix: allow more (docker run --shm-size=8g), or set data.num_workers=0; then go on with resume=auto"
    )


def _is_from_worker(error: BaseException) -> bool:
    """Whether it was met on the way of a tensor from another process."""
    return any("multiprocessing" in Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__))


def _worker_gone(text: str, cfg: DictConfig) -> str:
    pids = ", ".join(dict.fromkeys(re.findall(r"\d+", text.partition("pid")[2]))) or "unknown"
    how = re.search(r"killed by signal: ([^.]*)", text)
    what = f"was killed ({how[1].strip()})" if how else "ended without a word"
    return (
        f"a process that loads data (pid {pids}) {what}; that is what a system does when memory runs out\n"
        f"    lower data.num_workers ({cfg.data.num_workers} now, on each device) or data.batch_size"
        f" ({cfg.data.batch_size}), or ask for more memory; then go on with resume=auto"
    )


def _planned(cfg: DictConfig) -> str:
    """What the plan of this folder says, or how to make one."""
    path = Path(cfg.run_dir) / "plan.json"
    if not path.is_file():
        return "\n    where it goes, and the largest batch that fits: the same command with mode=plan run_dir=ANOTHER"
    plan = optional_json(path)
    try:
        memory, largest = (plan or {})["memory"], (plan or {})["batch"]["largest_size"]
        kinds = ", ".join(f"{kind} {readable(size)}" for kind, size in memory.items() if size)
    except (LookupError, TypeError, AttributeError):  # damaged: what happened is still worth telling
        return ""
    return f"\n    the plan said {kinds}" + (f"; data.batch_size={largest} at most" if largest else "")


def _out_of_memory(text: str, cfg: DictConfig) -> str:
    tried = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    free = re.search(r"([\d.]+ \w+) is free", text)
    figures = f": {tried[1]} were asked for" if tried else ""
    figures += f", {free[1]} are free" if free else ""
    parts = cfg.trainer.accumulate_grad_batches
    return (
        f"the device is out of memory{figures}{_planned(cfg)}\n"
        f"    cut the batch: trainer.accumulate_grad_batches={2 * parts} ({parts} now; data.batch_size ="
        f" {cfg.data.batch_size} stays what it is), or set trainer.precision=bf16-mixed, or"
        " encoder.NAME.checkpointing=true; then go on with resume=auto"
    )
