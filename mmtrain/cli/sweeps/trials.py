"""A sweep whose runs are chosen by Optuna, with resuming, pruning and several processes, unlike Hydra's own plugin.

The study is a journal in the folder of the sweep. A trial is a run, and its number is the name of the run's folder. If
the process of a trial is gone, the same trial is run again from its checkpoint. The result of a run is read from its
folder, so it does not matter which process ran it.
"""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import optional_json, read_csv
from mmtrain.training.run_folder import is_locked
from mmtrain.training.sweep.records import JobRecord
from mmtrain.training.sweep.study import NAME, STUDY, storage_of

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
MAX_FAILED = 3  # in a row, before a search stops
SECONDS_TO_START = 120.0  # after this time, a trial without a folder has lost its process


class Search:
    """A study, and the execution of its trials.

    Args:
        config: of the sweep, with Hydra's own part.
        launcher: runs lists of overrides.
        sampler: creates a sampler of Optuna from a seed. Each trial has a new one, so that a resumed search continues
            with the same trials.
        pruner: of Optuna; None disables pruning.
        objectives: max or min by name; empty for the metric that chooses checkpoints.
    """

    def __init__(
        self,
        *,
        config: DictConfig,
        launcher: Launcher,
        sampler: Callable[..., optuna.samplers.BaseSampler],
        pruner: optuna.pruners.BasePruner | None,
        objectives: Mapping[str, str],
    ) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = launcher
        self.objectives = objectives
        self.sampler = sampler
        self.seed = int(config.seed)
        if (self.folder / STUDY).exists() and config.resume != "auto":
            print_escaped(
                f"run_dir={self.folder}: already contains a sweep\n"
                "    fix: resume it with resume=auto, or set run_dir to another folder",
                stderr=True,
            )
            sys.exit(2)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ways = list(objectives.values()) or [config.checkpoint.mode]
        self.study = optuna.create_study(
            storage=storage_of(self.folder),
            study_name=NAME,
            directions=[DIRECTIONS[way] for way in ways],
            pruner=pruner or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    def run(self, arguments: Sequence[str], n_trials: int, n_jobs: int) -> None:
        """Run trials until there are `n_trials`, `n_jobs` at once. Trials of other processes are not touched."""
        space, fixed = search_space(arguments)
        failed = 0
        while failed < MAX_FAILED:
            batch = self._abandoned_trials(space)[:n_jobs]
            batch += self._new(space, n_trials, n_jobs - len(batch))
            if not batch:
                return
            jobs = [[*fixed, *_as_overrides(t), f"hydra.sweep.subdir={t.number}"] for t in batch]
            self.launcher.launch(jobs, initial_job_idx=batch[0].number)
            for trial in batch:
                state, values = outcome(self.folder / str(trial.number), self.objectives)
                if state is TrialState.RUNNING and not is_locked(self.folder / str(trial.number)):
                    return  # it was stopped, and the sweep with it
                if state is not TrialState.RUNNING:
                    self.study.tell(trial.number, values, state=state, skip_if_finished=True)
                failed = failed + 1 if state is TrialState.FAIL else 0

    def _abandoned_trials(self, space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
        """Trials whose process is gone."""
        results = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self.folder / str(trial.number)
            if is_locked(folder) or (JobRecord.read(folder) is None and _age(trial) < SECONDS_TO_START):
                continue
            if set(trial.params) == set(space) and all(_is_of(space[k], v) for k, v in trial.params.items()):
                results.append(trial)
            else:  # its process ended before all parameters were sampled
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return results

    def _new(self, space: Mapping[str, BaseDistribution], n_trials: int, at_most: int) -> Iterator[FrozenTrial]:
        """New trials, until there are `n_trials`."""
        for _ in range(at_most):
            if len(self.study.get_trials(deepcopy=False)) >= n_trials:
                return
            number = len(self.study.get_trials(deepcopy=False))  # or a later one, if others ask at the same time
            self.study.sampler = self.sampler(seed=_mix_seed(self.seed, number))
            number = self.study.ask(dict(space)).number
            yield self.study.get_trials(deepcopy=False)[number]


def _is_of(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value from the journal can become an override: a number, or an option of this command."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, int | float)


def _as_overrides(trial: FrozenTrial) -> list[str]:
    """A trial as overrides, with numbers of four digits."""
    return [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items()]


def _mix_seed(seed: int, number: int) -> int:
    return random.Random(f"{seed}:{number}").getrandbits(32)


def _age(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None
    return (datetime.now() - trial.datetime_start).total_seconds()


def outcome(folder: Path, objectives: Mapping[str, str]) -> tuple[TrialState, list[float] | None]:
    """The result of a run from its folder; RUNNING if another process has it or it was stopped."""
    path = folder / "summary.json"
    summary = optional_json(path) or {}
    status = summary.get("status")
    if status == "stopped" or (status not in ("done", "pruned", "failed") and is_locked(folder)):
        return TrialState.RUNNING, None
    if status == "pruned":
        return TrialState.PRUNED, None
    if status != "done" or summary["best"] is None:
        return TrialState.FAIL, None
    if not objectives:
        return TrialState.COMPLETE, [summary["best"]["value"]]
    values = [_value(folder, summary, name) for name in objectives]
    known = [value for value in values if value is not None]
    return (TrialState.COMPLETE, known) if len(known) == len(values) else (TrialState.FAIL, None)


def _value(folder: Path, summary: Mapping[str, Any], name: str) -> float | None:
    """A value of a run: from its best checkpoint (val/...), from its test (test/...), or from summary.json."""
    if name.startswith("test/"):
        result = summary["test"].get(name.removeprefix("test/"))
        return None if result is None else float(result["value"])
    if name.startswith("val/"):
        rows = [row for row in read_csv(folder / "metrics.csv", whole_numbers=("step",)).rows if row.get(name)]
        at_best = [row for row in rows if int(row["step"]) <= summary["best"]["step"]]
        return float(at_best[-1][name]) if at_best else None
    number = summary["parameters"]["total"] if name == "parameters" else summary.get(name)
    return None if number is None else float(number)


def search_space(arguments: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """The search space from overrides in Hydra's sweep syntax, and the fixed overrides.

    `a=x,y` and `choice(x, y)` are options. `interval(0.1, 1)` and `range(1, 9)` are numbers. `tag(log, interval(...))`
    are numbers on a logarithmic scale, and `int(interval(1, 9))` integers.
    """
    space: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)  # the command line overrides the search space of a file
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            assert override.input_line is not None
            fixed[key] = override.input_line
    return space, list(fixed.values())


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if isinstance(value, RangeSweep) and not value.shuffle and all(map(_is_integer, (value.start, value.stop))):
        assert value.start is not None
        assert value.stop is not None
        last = int(value.start + (value.stop - 1 - value.start) // value.step * value.step)  # without stop
        return IntDistribution(int(value.start), last, step=int(value.step))
    return CategoricalDistribution([str(x) for x in override.sweep_iterator(transformer=Transformer.encode)])


def _is_integer(value: object) -> bool:
    return isinstance(value, int)
