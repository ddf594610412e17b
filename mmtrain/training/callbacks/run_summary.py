"""summary.json: status, steps, metrics, time and memory of a run, for people and scripts."""

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer

import mmtrain
from mmtrain.data.module import DataModule
from mmtrain.io.run_files import optional_json, write_json
from mmtrain.training.callbacks.footprint import PeakMemoryMonitor
from mmtrain.training.callbacks.model_checkpoint import ModelCheckpoint
from mmtrain.training.callbacks.parts import log_model_summary
from mmtrain.training.checkpoint.load import load_checkpoint
from mmtrain.training.lit_module import LitModel


class Clock:
    """How long a run took. The time before a resume counts up to the checkpoint that was resumed."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._training: tuple[float, int] | None = None  # when it started, and at which step
        self._before = {"seconds": 0.0, "training_seconds": 0.0, "steps": 0}

    def start_training(self, step: int) -> None:
        """Start the clock of the training, before its first step."""
        self._training = time.monotonic(), step

    def add(self, before: Mapping[str, Any]) -> None:
        """Add the result of `read` at the time when the resumed checkpoint was written."""
        self._before = {name: before[name] for name in self._before}

    def seconds(self) -> float:
        """All seconds, including reading data and tests."""
        return float(self._before["seconds"] + time.monotonic() - self._started)

    def read(self, step: int) -> dict[str, Any]:
        """Return all seconds, the seconds of training, and the number of training steps.

        Args:
            step: current step of the optimizer.
        """
        began, first = (time.monotonic(), step) if self._training is None else self._training
        return {
            "seconds": self.seconds(),
            "training_seconds": self._before["training_seconds"] + max(time.monotonic() - began, 1e-9),
            "steps": self._before["steps"] + step - first,
        }


class RunSummary(Callback):
    """Collects the values of summary.json, and adds metadata of the run to every checkpoint.

    Args:
        cfg: resolved.
        lit: the LightningModule of the run.
        data: of the run.
        loss: description of the loss, for people.
        footprint: measures peak memory; None if nothing is trained.
        facts: of configuration and data, for comparison by a resumed run.

    Attributes:
        values: the results so far, under the keys of summary.json.
        parts: of the model, with their output shapes and numbers of parameters.
        tables: all rows of corruptions and groups.
        split: the last evaluated split.
    """

    def __init__(
        self,
        cfg: DictConfig,
        lit: LitModel,
        data: DataModule,
        *,
        loss: Mapping[str, Any],
        footprint: PeakMemoryMonitor | None = None,
        facts: Mapping[str, Any] = {},
    ) -> None:
        self.cfg = cfg
        self.footprint = footprint
        self.peak_before: int | None = None  # before the run was resumed
        self.lit = lit
        self.data = data
        self.folder = Path(cfg.run_dir)
        self.facts = dict(facts)
        self.parts = log_model_summary(lit.model, data.example())
        self.clock = Clock()
        self.rate: float | None = None
        self.values: dict[str, Any] = {"test": {}, "best": None, "steps": 0, "zero_steps": 0, "epochs": 0}
        self.values |= {"evaluated_weights": None, "loss": loss, "corruptions": [], "groups": []}
        self.values["not_judged"] = []
        self.tables: dict[str, Sequence[Any]] = {"corruptions": (), "groups": ()}
        self.split = "val"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the version, command, facts and class names of the run, and its time and memory so far."""
        checkpoint["clock"] = {**self.clock.read(trainer.global_step), "peak_memory": self._peak_memory()}
        checkpoint["mmtrain"] = {
            "version": mmtrain.__version__,
            "command": _command(self.cfg),
            "facts": self.facts,
            "names": self.data.names(),
        }

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start the clock of the training."""
        self.clock.start_training(trainer.global_step)

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Add time and memory from before the run was resumed; a checkpoint of an older version has neither."""
        if "clock" in checkpoint:
            self.clock.add(checkpoint["clock"])
            self.peak_before = checkpoint["clock"]["peak_memory"]

    def _peak_memory(self) -> int | None:
        now = None if self.footprint is None else self.footprint.peak
        return max((peak for peak in (now, self.peak_before) if peak is not None), default=None)

    def trained(self, trainer: Trainer) -> None:
        """Add the steps, the rate and the best checkpoint of the training."""
        read = self.clock.read(trainer.global_step)
        per_step = self.data.epoch_size / self.data.steps_per_epoch
        best = trainer.checkpoint_callback
        assert isinstance(best, ModelCheckpoint)
        self.values["steps"], self.values["epochs"] = trainer.global_step, trainer.current_epoch
        self.values["zero_steps"] = self.lit.zero_steps
        self.values["not_judged"] = self.lit.evaluation.not_judged
        self.rate = read["steps"] * per_step / read["training_seconds"] if read["steps"] else None
        if best.best_model_score is not None:
            path = Path(best.best_model_path)
            self.values["best"] = {
                "metric": best.monitor,
                "value": float(best.best_model_score),
                "step": load_checkpoint(path)["global_step"] if path.is_file() else None,
                "mode": best.mode,
            }

    def tested(self) -> None:
        """Add the test metrics."""
        self.split = "test"
        self.values["test"] = dict(self.lit.table)
        self.values["not_judged"] = [*self.values["not_judged"], *self.lit.evaluation.not_judged]

    def add_table(self, name: str, rows: Sequence[Any], *, main: Sequence[str]) -> None:
        """Add the metrics of corruptions or groups. The main metrics are in summary.json.

        Args:
            name: corruptions or groups.
            rows: NamedTuples, one per metric, with the metric's name as `metric`.
            main: names of the main metrics.
        """
        self.tables[name] = rows
        self.values[name] = [row._asdict() for row in rows if row.metric in main]

    def write(self, status: str, error: BaseException | None = None) -> None:
        """Write summary.json.

        A test keeps the summary of the training in the same folder, and replaces only the test results.

        Args:
            status: done, failed or stopped.
            error: that ended the run.
        """
        path = self.folder / "summary.json"
        before = (optional_json(path) or {}) if self.cfg.mode != "fit" else {}
        mine = {
            "status": status,
            "mode": self.cfg.mode,
            "command": _command(self.cfg),
            **self.values,
            "samples_per_second": self.rate,
            "peak_memory": self._peak_memory(),
            "seconds": self.clock.seconds(),
            "parameters": {k: sum(p[k] for p in self.parts) for k in ("parameters", "trainable")},
            "parts": self.parts,
            "versions": _versions(),
            "git_commit": _git_commit(),
            "error": None if error is None else f"{type(error).__name__}: {error}",
        }
        mine["parameters"]["total"] = mine["parameters"].pop("parameters")
        tested = {name: mine[name] for name in ("test", "corruptions", "groups")}
        earlier = [result for result in before.get("not_judged") or [] if result["split"] != "test"]
        tested["not_judged"] = [*earlier, *mine["not_judged"]]
        write_json(path, before | tested if before else mine, indent=1)


def _command(cfg: DictConfig) -> str:
    quoted = [f"'{o}'" if set(o) & set('[]{}()$ *&;|<>"') else o for o in cfg.overrides]
    return " ".join(["python train.py", *quoted])


def _versions() -> dict[str, str]:
    names = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "transformers", "datasets")
    return {"mmtrain": mmtrain.__version__, "python": platform.python_version()} | {n: version(n) for n in names}


def _git_commit() -> str | None:
    """The commit of the working directory, if it is a git checkout."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
