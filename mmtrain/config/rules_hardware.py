"""Rules about this machine: cores, GPUs, packages, and a folder that can be written. Nothing heavy is imported.

A fault is reported only if it is certain. Torch and Lightning report later whether CUDA works, and on which GPU.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from omegaconf import OmegaConf

from mmtrain.config.provenance import ComposedConfig

MAX_WORKERS_PER_CORE = 4  # loading processes per core: they wait for the disk, but more would not load faster
LEAST_FREE = 100_000_000  # bytes: a run writes metrics, a report and two checkpoints
# files that show a GPU on Linux: NVIDIA, a GPU of Windows in WSL, Jetson, AMD
GPU_FILES = ("nvidia*", "dxg", "nvhost*", "nvmap", "nvgpu*", "kfd")
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def num_gpus() -> int | None:
    """The largest number of NVIDIA GPUs that a run can use; None if only CUDA can tell."""
    num_devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_devices)))).split(",")
    return min(num_devices, len(list(takewhile(lambda name: name.strip() not in ("", "-1"), named)))) or None


def has_no_gpu() -> bool:
    """Whether there is certainly no GPU. On other systems than Linux, only torch can tell."""
    return sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in GPU_FILES)


def is_installed(package: str) -> bool:
    """Whether a package can be imported. It is not imported here."""
    return find_spec(package) is not None


def free_bytes(folder: Path) -> int | None:
    """Free bytes on the disk of a folder; None if the file system does not report them."""
    disk = shutil.disk_usage(folder)
    return disk.free if disk.total > 0 else None


def _is_local(run: ComposedConfig) -> bool:
    """Whether the run is not sent to a cluster."""
    return run.get("hydra.launcher._target_") in (None, BASIC_LAUNCHER)


def _is_here(run: ComposedConfig) -> bool:
    """Whether the model is trained on this machine. A plan for another machine and a cluster job are not."""
    return run.get("mode") != "plan" and _is_local(run)


def _is_rank() -> bool:
    """Whether another program, such as torchrun, started the ranks and distributed the devices."""
    return "LOCAL_RANK" in os.environ


def _devices(run: ComposedConfig) -> list[int]:
    """Indices of the devices of a run on this machine; one index if Lightning chooses."""
    devices = run.get("trainer.devices")
    if OmegaConf.is_list(devices):
        return [d for d in devices if isinstance(d, int)]
    words = str(devices).split(",")
    if not all(word.isdecimal() for word in words):
        return [0]
    return list(map(int, words)) if len(words) > 1 else list(range(int(words[0])))


def rule_common_folder(run: ComposedConfig) -> Iterator[str]:
    """Ranks that are started by another program compose separately, and need the same run folder."""
    several = _is_rank() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and _is_here(run) and "run_dir" not in run.set_by and "now" in str(run.raw["run_dir"]):
        yield (
            f"run_dir={run.raw['run_dir']}: a time, which differs between the processes of this run"
            f" ({run.file_of('run_dir')})\n    fix: set run_dir=DIR"
        )


def rule_nodes(run: ComposedConfig) -> Iterator[str]:
    """Processes on several machines are started by torchrun or srun."""
    nodes = run.get("trainer.num_nodes")
    if _is_here(run) and isinstance(nodes, int) and nodes > 1 and not _is_rank():
        where = run.where("trainer.num_nodes" if "trainer.num_nodes" in run.set_by else "trainer")
        yield (
            f"trainer.num_nodes={nodes}: python train.py starts only the processes of one machine ({where})\n"
            "    fix: start it with torchrun or srun on each machine (docs/scale.md), or set trainer.num_nodes=1"
        )


def rule_world_size(run: ComposedConfig) -> Iterator[str]:
    """The number of started processes is the number of devices on all machines."""
    devices, nodes = run.get("trainer.devices"), run.get("trainer.num_nodes")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if not _is_here(run) or not _is_rank() or started == 1 or run.get("mode") in ("search", "chat"):
        return
    if str(devices) in ("auto", "-1") or not isinstance(nodes, int) or len(_devices(run)) * nodes == started:
        return
    yield (
        f"trainer.devices={devices}, trainer.num_nodes={nodes}: {len(_devices(run)) * nodes} processes in all, but"
        f" WORLD_SIZE={started} (environment) were started ({run.where('trainer.devices', 'trainer.num_nodes')})\n"
        "    fix: set trainer=ddp, trainer.devices to the processes of one machine, and trainer.num_nodes"
    )


def rule_workers(run: ComposedConfig) -> Iterator[str]:
    """The number of loading processes is not much larger than the number of cores."""
    workers, cores = run.get("data.num_workers"), num_cores()
    devices = 1 if _is_rank() else max(1, len(_devices(run)))
    if (
        not _is_here(run)
        or not isinstance(workers, int)
        or workers < 2
        or workers * devices <= MAX_WORKERS_PER_CORE * cores
    ):
        return
    each = f" on each of {devices} devices" if devices > 1 else ""
    yield (
        f"data.num_workers={workers}: too many{each} for {cores} {'core' if cores == 1 else 'cores'}"
        f" ({run.where('data.num_workers', *(['trainer.devices'] if devices > 1 else []))})\n"
        f"    fix: set data.num_workers to {max(1, cores // devices)}, or to 0 to load in the training process"
    )


def rule_gpus(run: ComposedConfig) -> Iterator[str]:
    """There are as many GPUs as the run needs."""
    gpus, devices = num_gpus(), _devices(run)
    accelerator = run.get("trainer.accelerator")
    if not _is_here(run) or accelerator not in ("gpu", "cuda"):
        return
    if has_no_gpu():
        one = " trainer.devices=1" if len(devices) > 1 else ""
        where = run.where("trainer.accelerator" if "trainer.accelerator" in run.set_by else "trainer")
        yield (
            f"trainer.accelerator={accelerator}: there is no GPU on this machine ({where})\n"
            f"    fix: set trainer=cpu{one}, or run on a machine with a GPU"
        )
    if gpus is None or _is_rank():
        return
    if max(devices, default=0) >= gpus:
        is_list = len(devices) != max(devices) + 1
        fix = f"number them from 0 to {gpus - 1}" if is_list else f"set trainer.devices to {gpus}, or to auto for all"
        yield (
            f"trainer.devices={run.get('trainer.devices')}: this machine has only {gpus}"
            f" {'GPU' if gpus == 1 else 'GPUs'} ({run.where('trainer.devices')})\n    fix: {fix}"
        )


def rule_accelerator(run: ComposedConfig) -> Iterator[str]:
    """The requirements of an accelerator are met."""
    accelerator = run.get("trainer.accelerator")
    missing = {
        "mps": "a Mac" if sys.platform != "darwin" else None,
        "tpu": "the package torch_xla, which is not installed" if not is_installed("torch_xla") else None,
    }.get(str(accelerator))
    if _is_here(run) and missing is not None:
        yield (
            f"trainer.accelerator={accelerator}: needs {missing} ({run.where('trainer.accelerator')})\n"
            "    fix: set trainer.accelerator to cpu, gpu or auto"
        )


def rule_precision(run: ComposedConfig) -> Iterator[str]:
    """The device supports the precision."""
    key = "trainer.precision"
    precision, where = str(run.get(key)), run.where(key, "trainer.accelerator")
    if not _is_here(run):
        return
    if precision in ("16", "16-mixed") and run.get("trainer.accelerator") == "cpu":
        yield (
            f"{key}={precision}: needs a GPU, but trainer.accelerator=cpu ({where})\n"
            f"    fix: set {key} to bf16-mixed or 32{'' if has_no_gpu() else ', or choose trainer=gpu'}"
        )
    if precision.startswith("transformer-engine") and not is_installed("transformer_engine"):
        yield (
            f"{key}={precision}: needs the package transformer_engine, which is not installed ({run.where(key)})\n"
            f"    fix: set {key}=bf16-mixed, or install the package"
        )


def rule_sync_batchnorm(run: ComposedConfig) -> Iterator[str]:
    """Batch norms can be synchronized only between GPUs."""
    accelerator = run.get("trainer.accelerator")
    is_cpu = accelerator == "cpu" or (accelerator == "auto" and has_no_gpu())
    has_ranks = len(_devices(run)) > 1 or run.get("trainer.strategy") != "auto" or _is_rank()
    if _is_here(run) and run.get("trainer.sync_batchnorm") and is_cpu and has_ranks:
        yield (
            "trainer.sync_batchnorm=true: torch synchronizes batch norms only between GPUs, but this run uses CPUs"
            f" ({run.where('trainer.sync_batchnorm', 'trainer.accelerator')})\n"
            "    fix: set trainer.sync_batchnorm=false"
        )


def rule_run_dir(run: ComposedConfig) -> Iterator[str]:
    """The run folder can be written, and its disk has enough space."""
    name = str(run.get("run_dir") or "").strip()
    # not Path.exists, which raises in a folder that may not be read
    existing = next((p for p in (Path(name), *Path(name).parents) if os.path.exists(p)), Path(name))  # noqa: PTH110
    if not name or existing.is_file() or not _is_local(run):
        return  # rule_files reports a file
    where = run.where("run_dir")
    try:
        with tempfile.TemporaryFile(dir=existing):  # os.access is always true for root
            free = free_bytes(existing)
    except OSError as error:
        yield (
            f"run_dir={name}: cannot write in {existing}: {error.strerror} ({where})\n"
            "    fix: set run_dir to a folder with write permission, such as outputs/mine"
        )
        return
    if run.get("mode") == "fit" and free is not None and free < LEAST_FREE:
        yield (
            f"run_dir={name}: its disk has {free / 1e6:.0f} MB free, too little for checkpoints ({where})\n"
            f"    fix: free at least {LEAST_FREE / 1e6:.0f} MB, or set run_dir to a folder on another disk"
        )
