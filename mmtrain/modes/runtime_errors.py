"""Messages without a traceback for errors of the machine and of libraries that a user can act on.

These are a killed worker, a full memory or disk, diverged weights, and settings or names that a library rejects only
when it uses them.
"""

import difflib
import re
import traceback
from pathlib import Path

import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mmtrain.distributed import rank, world_size
from mmtrain.io.os_errors import explanation
from mmtrain.io.run_files import optional_json
from mmtrain.training.checkpoint.load import describe_newest
from mmtrain.units import format_bytes

# messages of gloo and NCCL
PEER_GONE = re.compile(
    r"Connection (reset|closed) by peer|remote process exited|Read error|ncclRemoteError", re.IGNORECASE
)
SHARED_MEMORY = re.compile(r"shared memory|/torch_\d|/dev/shm")


# Libraries that check what the user has set. A ValueError of torch is more likely a bug of the program.
CHECKING = (
    *("pytorch_lightning", "lightning_fabric", "wandb"),
    *("huggingface_hub", "transformers", "datasets", "tokenizers"),
)
NO_MEMORY = "can't allocate memory"  # torch, for a tensor on the CPU
NO_GPU = re.compile("no NVIDIA driver|NVIDIA driver on your system is too old|not compiled with CUDA|No CUDA GPUs")


def explain_error(error: BaseException, cfg: DictConfig) -> str | None:
    """Return what happened and the fix; None for a bug of the program.

    Args:
        error: the exception that ended the run.
        cfg: its configuration.
    """
    explanations = (_of_memory, _of_files, _of_processes, _of_numbers, _of_settings)
    return next((message for explain in explanations if (message := explain(error, cfg)) is not None), None)


def _of_memory(error: BaseException, cfg: DictConfig) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        return _out_of_memory(str(error), cfg)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY in str(error)):
        return _no_memory(str(error), cfg)
    return None


def _of_files(error: BaseException, cfg: DictConfig) -> str | None:
    of_files = explanation(error, f"run_dir={cfg.run_dir}")
    return of_files and (_of_shared_memory(error) or of_files)


def _of_processes(error: BaseException, cfg: DictConfig) -> str | None:
    text = str(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return _worker_gone(f"{text} {error.__cause__ or ''}", cfg)  # one of the two names the signal
    if isinstance(error, EOFError | ConnectionError) and _is_from_worker(error):  # it was sending a batch
        return _worker_gone("", cfg)
    if isinstance(error, RuntimeError) and world_size() > 1 and PEER_GONE.search(text):
        return (
            f"rank {rank()}: another process of this run has ended; see its own message for the reason\n"
            "    fix: resume with resume=auto"
        )
    return None


def status_of(error: BaseException) -> int:
    """The exit status: 2 if the user can correct the configuration, the data, a disk or a permission; otherwise 1.

    Status 1 is for bugs of the program, its memory and its processes.
    """
    if explanation(error, "") is not None:
        return 2
    of_user = isinstance(error, FloatingPointError) or _is_anomaly(error) or _library_of(error) is not None
    return 2 if of_user or _has_no_gpu(error) or _is_not_deterministic(error) else 1


def _is_anomaly(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "returned nan values in its" in str(error)


def _has_no_gpu(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | AssertionError) and NO_GPU.search(str(error)) is not None


def _is_not_deterministic(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error)


def _library_of(error: BaseException) -> str | None:
    """The library that rejects a setting or a name of the user; None for another error or another origin."""
    if isinstance(error, MisconfigurationException):
        return "pytorch_lightning"
    frames = traceback.extract_tb(error.__traceback__)
    parts = Path(frames[-1].filename).parts if frames else ()
    is_refusal = isinstance(error, ValueError | ImportError | OSError)
    is_of_callback = isinstance(error, RuntimeError) and "callbacks" in parts  # early stopping without its metric
    return next((name for name in CHECKING if name in parts), None) if is_refusal or is_of_callback else None


def _of_numbers(error: BaseException, cfg: DictConfig) -> str | None:
    if isinstance(error, FloatingPointError):
        return _not_finite(error, cfg)
    if _is_anomaly(error):
        return (
            f"trainer.detect_anomaly=true: {error} The warning above shows the operation in the forward pass.\n"
            "    fix: set a lower optimizer.lr or trainer.gradient_clip_val"
        )
    return None


def _of_settings(error: BaseException, cfg: DictConfig) -> str | None:
    text = str(error)
    if _has_no_gpu(error):
        return f"trainer.accelerator={cfg.trainer.accelerator}: {text.splitlines()[0]}\n    fix: set trainer=cpu"
    if _is_not_deterministic(error):
        what = text.partition(",")[0]
        return f"trainer.deterministic={cfg.trainer.deterministic}: {what}\n    fix: set trainer.deterministic=warn"
    if isinstance(error, MisconfigurationException) and "could not find the monitored key" in text:
        return _unknown_monitor(text)
    library = _library_of(error)
    return None if library is None else f"{library}: {' '.join(text.split())}\n    fix: change the key that it names"


def _not_finite(error: FloatingPointError, cfg: DictConfig) -> str:
    """A metric received NaN or infinity. It has no score, and the run ends."""
    if cfg.mode != "fit":
        return (
            f"{error}\n    fix: use another checkpoint of the run with resume=PATH, or train again with a lower"
            " optimizer.lr or trainer.gradient_clip_val=1"
        )
    return (
        f"training stopped: {error}\n    {describe_newest(Path(cfg.run_dir))}\n"
        "    fix: resume with resume=auto and a lower optimizer.lr or trainer.gradient_clip_val"
        " ('resume_allow=[optimizer.lr,trainer.gradient_clip_val]'), or start again in another run_dir"
    )


def _unknown_monitor(text: str) -> str:
    wanted, *names = re.findall(r"'([^']+)'", text.partition("HINT")[0])
    names = [name for name in names if name.startswith("val/")]
    near = difflib.get_close_matches(wanted, names, n=1)
    fix = f"set monitor={near[0]}" if near else "set monitor=null, for the metric of the first task"
    return f"monitor={wanted}: not a metric of validation, which has {', '.join(names)}\n    fix: {fix}"


def _of_shared_memory(error: BaseException) -> str | None:
    if SHARED_MEMORY.search(str(error)) is None:
        return None
    return (
        "/dev/shm: No space left on device: loading processes send batches through it\n"
        "    fix: increase it (docker run --shm-size=8g), or set data.num_workers=0; then resume with resume=auto"
    )


def _is_from_worker(error: BaseException) -> bool:
    """Whether the error occurred while a tensor was received from another process."""
    return any("multiprocessing" in Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__))


def _worker_gone(text: str, cfg: DictConfig) -> str:
    pids = ", ".join(dict.fromkeys(re.findall(r"\d+", text.partition("pid")[2]))) or "unknown"
    how = re.search(r"killed by signal: ([^.]*)", text)
    what = f"was killed ({how[1].strip()})" if how else "ended without a message"
    return (
        f"data.num_workers={cfg.data.num_workers}: a loading process (pid {pids}) {what}; usually memory is full\n"
        f"    fix: lower data.num_workers or data.batch_size ({cfg.data.batch_size}), or use more memory; then resume"
        " with resume=auto"
    )


def _planned(cfg: DictConfig) -> str:
    """The plan in this folder in short, or how to make one."""
    path = Path(cfg.run_dir) / "plan.json"
    if not path.is_file():
        return "\n    memory by kind, and the largest batch: the same command with mode=plan run_dir=ANOTHER"
    plan = optional_json(path)
    try:
        memory, largest = (plan or {})["memory"], (plan or {})["batch"]["largest_size"]
        kinds = ", ".join(f"{kind} {format_bytes(size)}" for kind, size in memory.items() if size)
    except (LookupError, TypeError, AttributeError):  # damaged: the error is reported without it
        return ""
    return f"\n    the plan has {kinds}" + (f"; data.batch_size={largest} at most" if largest else "")


def _no_memory(text: str, cfg: DictConfig) -> str:
    tried = re.search(r"you tried to allocate (\d+) bytes", text)
    figures = f": {format_bytes(int(tried[1]))} were requested at once" if tried else ""
    return (
        f"this machine is out of memory{figures}\n    fix: lower data.batch_size ({cfg.data.batch_size}),"
        f" data.eval_batch_size ({cfg.data.eval_batch_size}) or data.num_workers ({cfg.data.num_workers}),"
        " or use a smaller model"
    )


def _out_of_memory(text: str, cfg: DictConfig) -> str:
    tried = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    free = re.search(r"([\d.]+ \w+) is free", text)
    figures = f": {tried[1]} were requested" if tried else ""
    figures += f", {free[1]} are free" if free else ""
    parts = cfg.trainer.accumulate_grad_batches
    return (
        f"the device is out of memory{figures}{_planned(cfg)}\n"
        f"    fix: set trainer.accumulate_grad_batches={2 * parts} ({parts} now; data.batch_size="
        f"{cfg.data.batch_size} stays the same), trainer.precision=bf16-mixed, or"
        " encoder.NAME.checkpointing=true; then resume with resume=auto"
    )
