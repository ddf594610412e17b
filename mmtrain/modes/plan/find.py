"""Finds the largest batch that fits, by trying, starting from the plan's estimate: `trainer.find_batch_size=true`.

`python -m mmtrain.modes.plan.find CONFIG.yaml ROWS` tries one size in its own process. The system may kill it for its
memory, and the next one starts from nothing.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch.utils.data import DataLoader

from mmtrain.build import build_data, build_lit, build_model
from mmtrain.config.run_config import read_run_config
from mmtrain.errors import ConfigError
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import CONFIG, write_config
from mmtrain.modes.plan.example import longest_example
from mmtrain.modes.plan.plan import device_of, make_plan
from mmtrain.training.callbacks.footprint import PeakMemoryMonitor
from mmtrain.training.memory import memory_of, tune_malloc
from mmtrain.training.trainer import build_callbacks
from mmtrain.types import Batch
from mmtrain.units import parse_bytes

CLOSE = 0.03  # the result is smaller than the maximum by at most this fraction
STEP = 1.25  # factor from a size that fits to the next one
TOO_MUCH = 3  # exit status of a size that does not fit


def find_batch_size(cfg: DictConfig, folder: Path) -> tuple[int, str]:
    """Return the largest `data.batch_size` whose steps fit on the devices, and a message about it.

    Args:
        cfg: resolved; it is not changed.
        folder: for files of the search.

    Raises:
        ConfigError: if not even one row fits.
    """
    cfg = _within_data(cfg, folder)
    data = build_data(cfg)
    data.read(folder, training=True)
    plan = make_plan(cfg, data)
    parts = plan["machine"]["devices"] * plan["batch"]["micro_batches"]
    high = max(1, data.epoch_size // parts) + 1
    guess = min(max(1, plan["batch"]["largest_rows"] or 1), high - 1)
    config = folder / "find.yaml"
    write_config(config, cfg)
    low, tried = 0, 0
    tries = candidate_sizes(0, high, guess)
    size = next(tries)
    with suppress(StopIteration):
        while True:
            fitted, tried = _is_tried(config, size), tried + 1
            low = size if fitted else low
            size = tries.send(fitted)
    if low == 0:
        raise ConfigError(
            "trainer.find_batch_size=true: not even one row fits on a device\n"
            "    fix: set trainer.precision=bf16-mixed or encoder.NAME.checkpointing=true, or use a smaller model"
        )
    message = f"data.batch_size={low * parts}: the largest that fits: {low:,} rows at once on a device, tries: {tried}"
    return low * parts, f"{message}; the plan estimated {plan['batch']['largest_rows']:,}"


def _within_data(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration with a batch that is at most as large as the training split."""
    trial = cfg.copy()
    trial.data.batch_size = 1
    data = build_data(trial)
    data.read(folder, training=True)
    trial.data.batch_size = min(cfg.data.batch_size, data.epoch_size)
    return trial


def _is_tried(config: Path, size: int) -> bool:
    """Whether steps with this number of rows fit, in a new process.

    Raises:
        ConfigError: with its output, if it ended for another reason than memory.
    """
    command = [sys.executable, "-P", "-m", "mmtrain.modes.plan.find", str(config), str(size)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # with the user's own classes
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode in (0, TOO_MUCH, -signal.SIGKILL):
        return done.returncode == 0
    raise ConfigError(f"trainer.find_batch_size=true: {size} rows cannot be tried\n{done.stderr.strip()}")


def candidate_sizes(low: int, high: int, guess: int) -> Generator[int, bool, None]:
    """Sizes to try. Each is followed by `send(whether it fits)`.

    Args:
        low: a size that fits; 0 if none is known.
        high: a size that does not fit.
        guess: between them.
    """
    step = STEP
    while high - low > max(1, int(low * CLOSE)):
        guess = min(max(guess, low + 1), high - 1)
        fitted = yield guess
        low, high = (guess, high) if fitted else (low, guess)
        guess = int(low * step) + 1 if fitted and low * step < high else (low + high) // 2
        step = min(4.0, step * step)


def step_fits(cfg: DictConfig, rows: int) -> bool:
    """Whether two steps of the run's own model fit on this device, with rows of the largest length.

    Args:
        cfg: resolved.
        rows: rows of a micro-batch.
    """
    device = device_of(cfg)
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    window = [repeat_rows(longest_example(data), rows) for _ in range(cfg.trainer.accumulate_grad_batches)]
    limit = memory_of(device) if cfg.plan.memory is None else parse_bytes(cfg.plan.memory)
    footprint = PeakMemoryMonitor()
    lit = build_lit(cfg, build_model(cfg, data))
    averages = [c for c in build_callbacks(cfg, monitor=None) if isinstance(c, WeightAveraging)]
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=cfg.trainer.precision,
        max_steps=2,
        callbacks=[*averages, footprint],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(lit, DataLoader([window, window], batch_size=None))  # type: ignore[arg-type]
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            return False
        raise
    return (footprint.peak or 0) < limit


def repeat_rows(batch: Batch, num_rows: int) -> Batch:
    """A batch that repeats the rows of another to a given number."""
    rows = torch.arange(num_rows) % len(batch)
    made: Batch = batch.map(lambda t: t[rows])
    made.ids = [str(row) for row in range(num_rows)]
    made.references = {}
    return made


def main() -> None:
    """Try one size. The exit status reports whether it fits."""
    cfg: Any = OmegaConf.load(sys.argv[1])
    torch.manual_seed(cfg.seed)
    tune_malloc()
    status = 0 if step_fits(cfg, int(sys.argv[2])) else TOO_MUCH
    sys.stdout.flush()
    os._exit(status)


def resolve_batch_size(cfg: DictConfig) -> int:
    """Set `data.batch_size`, and return the exit status; 0 to continue.

    Args:
        cfg: resolved; it is changed.
    """
    record = Path(cfg.run_dir) / CONFIG
    if cfg.resume is not None and record.is_file():
        try:
            size = OmegaConf.select(read_run_config(record.parent), "data.batch_size")
        except ConfigError as error:
            print_escaped(error, stderr=True)
            return 2
        if type(size) is not int:
            print_escaped(f"{record}: data.batch_size={size}: no integer\n    fix: set data.batch_size", stderr=True)
            return 2
        message = f"data.batch_size={size}: found by this run before"
    else:
        try:
            with tempfile.TemporaryDirectory() as folder:
                trial = cfg.copy()
                with open_dict(trial):
                    trial.run_dir = folder
                size, message = find_batch_size(trial, Path(folder))
        except ConfigError as error:
            print_escaped(error, stderr=True)
            return 2
    cfg.data.batch_size = size
    print_escaped(message)
    return 0


if __name__ == "__main__":
    main()
