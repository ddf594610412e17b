"""The runs of a sweep, so that all of them can be checked before the first one starts."""

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import product

from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, Transformer
from omegaconf import DictConfig

from mmtrain.config.compose import ConfigComposer, key_of
from mmtrain.config.constraints import constraints_of

SWEEPER = "configs/hydra/sweeper/optuna.yaml"
OPTUNA = "hydra_plugins.mmtrain_optuna_sweeper.OptunaSweeper"


def faults_of_sweeper(composing: ConfigComposer, sweeper: DictConfig, overrides: Sequence[str]) -> Iterator[str]:
    """Faults of the sweeper's own configuration.

    Args:
        composing: parses overrides.
        sweeper: `hydra.sweeper` of the configuration without sweep overrides.
        overrides: of the command line.
    """
    if sweeper._target_ == OPTUNA:
        if importlib.util.find_spec("optuna") is None:
            yield 'hydra/sweeper=optuna: Optuna is not installed\n    fix: pip install "mmtrain[sweep]"'
        for name, allowed in constraints_of(OPTUNA).items():
            value = sweeper.get(name)
            if not isinstance(value, DictConfig) and not allowed.allows(value):
                key = f"hydra.sweeper.{name}"
                where = next(
                    (f"override {o}" for o in overrides if key_of(o) == key), "configs/hydra/sweeper/optuna.yaml"
                )
                yield f"{key}={value}: must be {allowed} ({where})\n    fix: {key}={allowed.nearest(value) or 1}"
        wrong = {name: way for name, way in sweeper.objectives.items() if way not in ("max", "min")}
        for name, way in wrong.items():
            yield f"hydra.sweeper.objectives.{name}={way}: not a direction\n    fix: write max or min"
        if not _swept(composing, sweeper, overrides):
            yield (
                "hydra/sweeper=optuna: there is nothing to search\n    fix: add ranges or options, such as"
                " 'optimizer.lr=tag(log,interval(1e-4,1e-2))' fusion=sum,concat, or sweep=optimizer"
            )
        return
    for override in _swept(composing, sweeper, overrides):
        if not override.is_discrete_sweep():
            yield (
                f"{override.input_line}: a range has infinitely many values\n"
                "    fix: add hydra/sweeper=optuna to sample from it, or list values: "
                f"{override.get_key_element()}={','.join(_options(override))}"
            )


def combinations(composing: ConfigComposer, sweeper: DictConfig, overrides: Sequence[str]) -> list[list[str]]:
    """The runs of a sweep: every combination. For Optuna, each option and both ends of a range, one at a time."""
    swept = _swept(composing, sweeper, overrides)
    keys = {o.get_key_element() for o in swept}
    fixed = [o.input_line or "" for o in composing.parsed(list(overrides)) if o.get_key_element() not in keys]
    choices = [[f"{o.get_key_element()}={option}" for option in _options(o)] for o in swept]
    if sweeper._target_ != OPTUNA:
        return [[*fixed, *job] for job in product(*choices)]
    first = [options[0] for options in choices]
    others = [[*first[:i], option, *first[i + 1 :]] for i, options in enumerate(choices) for option in options[1:]]
    return [[*fixed, *job] for job in (first, *others)]


def _swept(composing: ConfigComposer, sweeper: DictConfig, overrides: Sequence[str]) -> list[Override]:
    """Keys with several values: in the search space of a file, or on the command line, which comes after it."""
    of_files = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    last = {o.get_key_element(): o for o in composing.parsed([*of_files, *overrides])}
    return [override for override in last.values() if override.is_sweep_override()]


def _options(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return [_written(option) for option in override.sweep_iterator(transformer=Transformer.encode)]


def _written(option: object) -> str:
    return option.with_quotes() if isinstance(option, QuotedString) else str(option)
