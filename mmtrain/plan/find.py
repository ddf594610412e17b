"""The largest batch that fits, found by trying, from the plan's guess: `trainer.find_batch_size=true`.

`python -m mmtrain.plan.find CONFIG.yaml LOW HIGH GUESS` tries sizes in a process of its own, which may be killed for
what it takes: a line says what is tried and a line whether it fitted, and who reads them knows what the end meant.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch.utils.data import DataLoader

from mmtrain.build import build_callbacks, build_data, build_lit, build_model
from mmtrain.callbacks.footprint import Footprint
from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.lit import LitModel
from mmtrain.memory import allow, memory_of
from mmtrain.plan.example import longest_example
from mmtrain.plan.plan import device_of, make_plan
from mmtrain.plan.sizes import in_bytes
from mmtrain.types import Batch

CLOSE = 0.03  # what is found is at most so much too small
STEP = 1.25  # from a size that fits to the next that is tried
FITS, FAILS, TRIES = "fits", "fails", "tries"


def find_batch_size(cfg: DictConfig, folder: Path) -> tuple[int, str]:
    """The largest `data.batch_size` whose steps fit on the devices, and what to tell of it.

    Args:
        cfg: resolved; it is not changed.
        folder: a place for files of the search.

    Raises:
        ConfigError: when not even one row at once fits.
    """
    data = build_data(cfg)
    data.read(folder, training=True)
    plan = make_plan(cfg, data)
    parts = plan["machine"]["devices"] * plan["batch"]["micro_batches"]
    low, high = 0, max(1, data.epoch_size // parts) + 1
    guess = min(max(1, plan["batch"]["largest_rows"] or 1), high - 1)
    config = folder / "find.yaml"
    OmegaConf.save(cfg, config)
    tried = 0
    while high - low > max(1, int(low * CLOSE)):
        low, high, guess, seen = _narrowed(config, low, high, guess)
        tried += seen
    if low == 0:
        raise ConfigError(
            "trainer.find_batch_size: not even one row at once fits on a device\n"
            "    set trainer.precision=bf16-mixed, encoder.NAME.checkpointing=true or a smaller model"
        )
    size = low * parts
    said = f"data.batch_size={size} is the largest that fits: {low:,} rows at once on a device, {tried} sizes tried"
    return size, f"{said}; the plan said {plan['batch']['largest_rows']:,}"


def _narrowed(config: Path, low: int, high: int, guess: int) -> tuple[int, int, int, int]:
    """Bounds after one process has tried: what fits, what does not, the next guess, how many were tried."""
    command = [sys.executable, "-m", "mmtrain.plan.find", str(config), *map(str, (low, high, guess))]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    said = [line.split() for line in lines if line.startswith((FITS, FAILS, TRIES))]
    tried = [int(n) for word, n in said if word == TRIES]
    if not tried:
        raise ConfigError("trainer.find_batch_size: the first try did not begin; its messages stand above")
    low = max([low, *(int(n) for word, n in said if word == FITS)])
    ended = [] if said[-1][0] != TRIES else [tried[-1]]  # the system ended it there
    high = min([high, *ended, *(int(n) for word, n in said if word == FAILS)])
    return low, high, max(low + 1, (low + high) // 2), len(tried)


def sizes(low: int, high: int, guess: int) -> Generator[int, bool, None]:
    """What to try; each is followed by `send(whether it fitted)`.

    Args:
        low: fits; 0 where nothing is known to.
        high: does not.
        guess: between them.
    """
    step = STEP
    while high - low > max(1, int(low * CLOSE)):
        guess = min(max(guess, low + 1), high - 1)
        fitted = yield guess
        low, high = (guess, high) if fitted else (low, guess)
        guess = int(low * step) + 1 if fitted and low * step < high else (low + high) // 2
        step = min(4.0, step * step)


class Trial:
    """Steps of the run's own model on this device, with rows as long as they come.

    Args:
        cfg: resolved.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.device = device_of(cfg)
        self.data: DataModule = build_data(cfg)
        self.data.read(Path(cfg.run_dir), training=True)
        self.example = longest_example(self.data)
        self.limit = memory_of(self.device) if cfg.plan.memory is None else in_bytes(cfg.plan.memory)

    def fits(self, rows: int) -> bool:
        """Whether two steps can be taken."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        footprint = Footprint()
        lit = build_lit(self.cfg, build_model(self.cfg, self.data))
        try:
            self._train(lit, rows, footprint)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                return False
            raise
        return (footprint.peak or 0) < self.limit

    def _train(self, lit: LitModel, rows: int, footprint: Footprint) -> None:
        window = [repeated(self.example, rows) for _ in range(self.cfg.trainer.accumulate_grad_batches)]
        averages = [c for c in build_callbacks(self.cfg, monitor=None) if isinstance(c, WeightAveraging)]
        trainer = Trainer(
            accelerator="gpu" if self.device == "cuda" else "cpu",
            devices=1,
            precision=self.cfg.trainer.precision,
            max_steps=2,
            callbacks=[*averages, footprint],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(lit, DataLoader([window, window], batch_size=None))  # type: ignore[arg-type]


def repeated(batch: Batch, num_rows: int) -> Batch:
    """A batch of so many rows: those of another, again and again."""
    rows = torch.arange(num_rows) % len(batch)
    made: Batch = batch.map(lambda t: t[rows])
    made.ids = [str(row) for row in range(num_rows)]
    made.references = {}
    return made


def main() -> None:
    """Try sizes and say of each whether it fits."""
    path, low, high, guess = sys.argv[1], *map(int, sys.argv[2:5])
    cfg: Any = OmegaConf.load(path)
    torch.manual_seed(cfg.seed)
    trial = Trial(cfg)
    if trial.device == "cpu":
        allow(int(trial.limit * 1.2))
    wanted = sizes(low, high, guess)
    size = next(wanted)
    with suppress(StopIteration):
        while True:
            print(TRIES, size, flush=True)
            fitted = trial.fits(size)
            print(FITS if fitted else FAILS, size, flush=True)
            size = wanted.send(fitted)
    os._exit(0)


if __name__ == "__main__":
    main()
