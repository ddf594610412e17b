"""Faults of the machine that a person can do something about: a killed worker, memory or a disk that is full."""

import errno
import json
import re
import traceback
from pathlib import Path

import torch
from omegaconf import DictConfig

from mmtrain.distributed import rank, world_size
from mmtrain.sizes import readable

# gloo and NCCL say so
PEER_GONE = re.compile(
    r"Connection (reset|closed) by peer|remote process exited|Read error|ncclRemoteError", re.IGNORECASE
)


def explained(error: BaseException, cfg: DictConfig) -> str | None:
    """What happened and the mend; None for what is a fault of the program.

    Args:
        error: what ended the run.
        cfg: its configuration.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return _out_of_memory(str(error), cfg)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(error, cfg)
    text = str(error)
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


def _disk_full(error: OSError, cfg: DictConfig) -> str:
    where = error.filename or f"run_dir = {cfg.run_dir}"
    return (
        f"{where}: {error.strerror}; checkpoints that stand there are whole\n"
        "    make room, then go on with resume=auto, or set run_dir to a copy of it on a larger disk"
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
    plan = json.loads(path.read_text(encoding="utf-8"))
    kinds = ", ".join(f"{kind} {readable(size)}" for kind, size in plan["memory"].items() if size)
    largest = plan["batch"]["largest_size"]
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
