"""Estimates the resources of a run before it starts: `mode=plan`.

The tables are read, because vocabularies, classes and lengths follow from them. The model is built without content, and
one step of it is simulated, see `simulate`. The effect of several devices is computed: docs/plan.md has the formulas.
"""

import math
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.modes.plan.example import longest_example, sentence_lengths
from mmtrain.modes.plan.simulate import AUTOCAST, Simulator, Step, of_size, simulator
from mmtrain.modes.plan.typical import typical_flops
from mmtrain.modes.plan.watch import OnDevice, Watch, without_content
from mmtrain.training.callbacks.parts import log_model_summary
from mmtrain.training.fsdp.shard import blocks_of, matrices_of
from mmtrain.training.memory import memory_of, workspace_of
from mmtrain.units import parse_bytes

KINDS = ("weights", "casts", "averages", "gradients", "optimizer", "activations", "data", "communication", "workspace")
# Fraction of the memory that tensors can use. On a GPU, its context and gaps between blocks take the rest. On a CPU,
# the C library keeps freed memory, and the process is up to twice as large: docs/plan.md
USABLE = {"cuda": 0.92, "cpu": 0.5}
MAX_TRIES = 8


def make_plan(cfg: DictConfig, data: DataModule) -> dict[str, Any]:
    """The plan of a run, as in plan.json: bytes, floating-point operations, seconds.

    Args:
        cfg: resolved.
        data: with its tables.

    Raises:
        ConfigError: for an invalid size.
    """
    device = device_of(cfg)
    num_devices = devices_of(cfg, device)
    sharded = "fsdp" in str(cfg.plan.strategy) or "model_parallel" in str(cfg.plan.strategy)
    example = longest_example(data)
    simulated = simulator(cfg, data, example, device=device)
    parts = num_devices * cfg.trainer.accumulate_grad_batches
    rows = math.ceil(cfg.data.batch_size / parts)
    step = simulated.step(rows)
    flops = typical_flops(simulated, sentence_lengths(data), rows)
    limit = _bytes(cfg, "memory") or (memory_of(device) if device == "cpu" or torch.cuda.is_available() else None)
    usable = None if limit is None else int(limit * USABLE[device])
    model = Sharing(
        simulated.lit.model,
        num_devices,
        sharded=sharded,
        in_16_bits=str(cfg.trainer.precision) in AUTOCAST,
        workspace=workspace_of(device),
    )
    memory = model.memory(step)
    largest = None if usable is None else _largest(simulated, model, rows, step, usable, most=data.epoch_size)
    return {
        "parts": _parts(simulated),
        "parameters": model.parameters,
        "machine": {
            "device": device,
            "devices": num_devices,
            "strategy": "fsdp" if sharded else "ddp" if num_devices > 1 else "single",
            "precision": str(cfg.trainer.precision),
            "memory": limit,
            "usable": usable,
        },
        "batch": {
            "size": cfg.data.batch_size,
            "micro_batches": cfg.trainer.accumulate_grad_batches,
            "rows": rows,
            "largest_rows": largest,
            "largest_size": None if largest is None else largest * parts,
        },
        "memory": memory | {"total": sum(memory.values())},
        "flops": {
            "sample": flops // (rows * cfg.trainer.accumulate_grad_batches),
            "step": flops * num_devices,
        },
        "network": _network(cfg, model),
        "run": _run(cfg, data, flops, model),
        "disk": _disk(simulated, step),
    }


def device_of(cfg: DictConfig) -> str:
    """Cpu or cuda, according to `plan.accelerator`."""
    accelerator = str(cfg.plan.accelerator)
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cpu" if accelerator == "cpu" else "cuda"


def devices_of(cfg: DictConfig, device: str) -> int:
    """Number of devices; those of this machine if the configuration has no number."""
    devices = cfg.plan.devices
    if isinstance(devices, int) and devices > 0:
        return devices
    if str(devices) in ("auto", "-1"):
        return max(1, torch.cuda.device_count()) if device == "cuda" else 1
    return len(devices) if not isinstance(devices, str) else len(devices.split(","))


class Sharing:
    """How the devices of a run share parameters, gradients and optimizer states.

    Args:
        model: without content.
        num_devices: N.
        sharded: whether each device has an Nth of the matrices in blocks (FSDP), or everything (DDP).
        in_16_bits: whether weights are gathered in 16 bits but kept in 32.
        workspace: bytes that libraries use on each device.
    """

    def __init__(
        self, model: nn.Module, num_devices: int, *, sharded: bool, in_16_bits: bool, workspace: int = 0
    ) -> None:
        self.num_devices = num_devices
        self.workspace = workspace
        self.sharded = sharded and num_devices > 1
        learning = [p for p in model.parameters() if p.requires_grad]
        self.parameters = {
            "total": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in learning),
        }
        self.weights = sum(p.nbytes for p in model.parameters())
        self.gradients = sum(p.nbytes for p in learning)
        units = [matrices_of(block) for block in blocks_of(model)]
        self.shared = sum(p.nbytes for unit in units for p in unit)
        self.shared_gradients = sum(p.nbytes for unit in units for p in unit if p.requires_grad)
        largest = max((sum(p.nbytes for p in unit) for unit in units), default=0)
        self.gathered = self.shared // (2 if in_16_bits else 1)
        # the block in computation, gathered and in use, and its gradient, complete and as shards to send
        self.in_flight = largest // (2 if in_16_bits else 1) * 2 + 2 * largest

    def memory(self, step: Step) -> dict[str, int]:
        """Bytes on each device by kind."""
        seen = {kind: step.memory.get(kind, 0) for kind in KINDS} | {"workspace": self.workspace}
        if self.num_devices == 1:
            return seen
        if not self.sharded:  # the buckets are the gradients, and stay from step to step
            return seen | {"gradients": self.gradients}
        return {
            **seen,
            **{kind: self._kept(seen[kind], self.shared, self.weights) for kind in ("weights", "averages")},
            "optimizer": self._kept(seen["optimizer"], self.shared_gradients, self.gradients),
            "gradients": self._kept(self.gradients, self.shared_gradients, self.gradients),
            "casts": seen["casts"] * (self.weights - self.shared) // max(1, self.weights),  # gathered in 16 bits
            "activations": step.activations,
            "communication": self.in_flight + self.gradients - self.shared_gradients,
        }

    def _kept(self, size: int, shared: int, total: int) -> int:
        """Bytes on a device, if `shared` of `total` parameters are sharded."""
        return size - size * shared // max(1, total) * (self.num_devices - 1) // self.num_devices

    @property
    def network(self) -> int:
        """Bytes that each device sends in a step: a ring sends (N - 1)/N of what is reduced or gathered."""
        if self.num_devices == 1:
            return 0
        if not self.sharded:
            return 2 * self.gradients * (self.num_devices - 1) // self.num_devices
        passed = 2 * self.gathered + self.shared_gradients + 2 * (self.gradients - self.shared_gradients)
        return passed * (self.num_devices - 1) // self.num_devices


def _largest(simulated: Simulator, sharing: Sharing, rows: int, step: Step, usable: int, *, most: int) -> int:
    """The largest number of rows of a micro-batch whose step fits; 0 if none fits. Memory grows almost linearly."""

    def total(number: int) -> int:
        return sum(sharing.memory(simulated.step(number)).values())

    known = {rows: sum(sharing.memory(step).values())}
    fitting, too_many = (rows, None) if known[rows] <= usable else (0, rows)
    guess = 2 * rows if fitting else max(1, rows // 2)
    for _ in range(MAX_TRIES):
        guess = min(guess, most)
        known[guess] = total(guess)
        if known[guess] <= usable:
            fitting = max(fitting, guess)
        else:
            too_many = guess if too_many is None else min(too_many, guess)
        if fitting == most or (too_many is not None and too_many - fitting <= max(1, fitting // 50)):
            break
        low, high = sorted(known, key=lambda n: abs(known[n] - usable))[:2]
        slope = max(1.0, (known[high] - known[low]) / (high - low))
        guess = int(low + (usable - known[low]) / slope)
        lower, upper = fitting + 1, (most if too_many is None else too_many - 1)
        guess = min(max(guess, lower), max(upper, lower))
        if guess in known:
            break
    return fitting


def _parts(simulated: Simulator) -> list[dict[str, Any]]:
    watch = Watch()
    with without_content(), OnDevice(simulated.device, AUTOCAST.get(simulated.precision), watch), watch:
        return log_model_summary(simulated.lit.model, of_size(simulated.example, 2))


def _network(cfg: DictConfig, sharing: Sharing) -> dict[str, Any]:
    bandwidth = _bytes(cfg, "bandwidth")
    seconds = None if bandwidth is None else sharing.network / bandwidth
    return {"bytes_per_step": sharing.network, "bandwidth": bandwidth, "seconds_per_step": seconds}


def _run(cfg: DictConfig, data: DataModule, flops: int, sharing: Sharing) -> dict[str, Any]:
    per_epoch, epochs, most = data.steps_per_epoch, cfg.trainer.max_epochs, cfg.trainer.max_steps
    limits = [n for n in (None if epochs in (None, -1) else epochs * per_epoch, most) if n not in (None, -1)]
    steps = min(limits)
    samples = steps * data.epoch_size // per_epoch
    rate = cfg.plan.samples_per_second
    seconds = None if rate is None else samples / rate
    if rate is None and cfg.plan.flops_per_second is not None:
        bandwidth = _bytes(cfg, "bandwidth")
        waiting = 0.0 if bandwidth is None else sharing.network / bandwidth  # as if it did not overlap with computation
        seconds = steps * (flops / cfg.plan.flops_per_second + waiting)
    return {
        "steps_per_epoch": per_epoch,
        "steps": steps,
        "samples": samples,
        "samples_per_second": rate if rate is not None or seconds is None else samples / seconds,
        "seconds": seconds,
    }


def _disk(simulated: Simulator, step: Step) -> dict[str, int]:
    """Size of a checkpoint, and of all at the same time: last, best, one in progress, and the weights of best."""
    state = sum(t.nbytes for t in simulated.lit.state_dict().values() if torch.is_tensor(t))
    checkpoint = state * (1 + simulated.num_averages) + step.memory.get("optimizer", 0)
    return {"checkpoint": checkpoint, "all": 3 * checkpoint + state}


def _bytes(cfg: DictConfig, name: str) -> int | None:
    value = cfg.plan[name]
    if value is None:
        return None
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ConfigError(f"plan.{name}={value}: not a size\n    fix: set plan.{name} to {error}") from error
