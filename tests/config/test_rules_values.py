"""What components allow, compared with the values that are shipped, and the message for a value that is not allowed."""

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pytorch_lightning.strategies import StrategyRegistry

from mmtrain.config.compose import config_dir
from mmtrain.config.constraints import Number, constraints_of
from mmtrain.config.provenance import ComposedConfig
from mmtrain.config.rules_values import annotated_keys, rule_values
from mmtrain.config.settings import BY_KEY, Strategy
from mmtrain.config.validate import Validator, faults_of


def components() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a shipped YAML file that names a class or function of this project."""

    def below(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict):
            if str(node.get("_target_")).startswith(("mmtrain.", "hydra_plugins.")):
                yield str(node["_target_"]), node
            node = list(node.values())
        for part in node if isinstance(node, list) else []:
            yield from below(part)

    for path in sorted(config_dir().rglob("*.yaml")):
        yield from below(yaml.safe_load(path.read_text(encoding="utf-8")))


def faults(*overrides: str) -> list[str]:
    return faults_of(config_dir(), None, list(overrides), multirun=False)


def test_shipped_values_are_allowed() -> None:
    wrong = [
        f"{target}.{key} = {value}, not {constraint}"
        for target, node in components()
        for key, constraint in constraints_of(target).items()
        if (value := node.get(key)) not in (None, "auto", "???")
        and "${" not in str(value)
        and "_target_" not in str(value)
        if not constraint.allows(value)
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def runs() -> list[ComposedConfig]:
    """Configurations that together have every option of every group of components."""
    composer = Validator(config_dir(), None)
    options = {group: composer.composing.options(group) for group in composer.composing.groups}
    lists = [f"{group}=[{','.join(options[group])}]" for group in ("callbacks", "logger")]

    def overrides(place: int) -> list[str]:
        turn = {group: names[place % len(names)] for group, names in options.items() if names}
        chosen = [f"{group}={turn[group]}" for group in options if group in SINGLE or group.startswith("encoder/")]
        chosen = [override for override in chosen if not override.startswith("encoder/dialogue")]  # its only option
        return [*chosen, *lists, f"task=[{turn['task']}]", f"+peft@encoder.image.peft={turn['peft']}"]

    composed = [composer._composed(overrides(place)) for place in range(max(map(len, options.values())))]
    GlobalHydra.instance().clear()
    return composed


SINGLE = ("fusion", "balance", "modality_balance", "schedule", "optimizer", "trainer")


def test_every_number_has_a_range(runs: list[ComposedConfig]) -> None:
    """A number without one is in a constructor without annotations: `mmtrain.annotations` has the usual ranges."""
    numbers = {
        (key, run.get(f"{key.rpartition('.')[0]}._target_")): annotated.get(key)
        for run in runs
        for annotated in [dict(annotated_keys(run))]
        for key, value in run.raw.items()
        if is_number(value) and not UNBOUNDED.fullmatch(key)
    }
    assert len(numbers) > 400
    assert {key for key, allowed in numbers.items() if not allowed or any(map(allowed.allows, WRONG))} == set()


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


UNBOUNDED = re.compile(r"task\..*\.length_penalty|task\.contrastive\.bias|trainer\.devices")
WRONG = (-7, float("nan"), float("inf"), -float("inf"), True)


def test_whole_numbers_take_no_fraction_and_are_limited(runs: list[ComposedConfig]) -> None:
    known = {key: constraint for run in runs for key, constraint in annotated_keys(run)}
    full = {k: c for k, c in known.items() if any(isinstance(a, Number) and a.integer for a in c.alternatives)}
    full = {k: c for k, c in full.items() if not any(isinstance(a, Number) and not a.integer for a in c.alternatives)}
    assert [key for key, constraint in full.items() if constraint.allows(1.5)] == []
    sizes = re.compile(r".*\.(dim|depth|num_heads|image_size|patch_size|num_\w+|hidden_dim|joint_dim|vocab_size)")
    free = {key for key, constraint in full.items() if sizes.fullmatch(key) and constraint.allows(10**12)}
    assert free == {"trainer.num_nodes", "data.num_workers"}


def test_every_wrong_value_is_reported(runs: list[ComposedConfig]) -> None:
    """One report has all of them: a wrong word where there are words to choose from, and -7 for each number."""
    words: set[tuple[str, Any]] = set()
    for run in runs:
        cfg, wrong = copy.deepcopy(run.cfg), dict[str, Any]()
        for key, constraint in annotated_keys(run):
            if constraint.words and run.root(key) == key:
                wrong[key] = "wrongword"
            elif is_number(run.raw[key]) and not UNBOUNDED.fullmatch(key):
                wrong[key] = -7
        for key, value in wrong.items():
            OmegaConf.update(cfg, key, value)
        faults = list(rule_values(replace(run, cfg=cfg, raw={**run.raw, **wrong})))
        assert {fault.partition("=")[0] for fault in faults} == wrong.keys()
        words |= {(k, run.get(f"{k.rpartition('.')[0]}._target_")) for k, value in wrong.items() if value != -7}
    assert len(words) >= 60


def test_settings_are_keys_of_the_configuration(runs: list[ComposedConfig]) -> None:
    for package, settings in BY_KEY.items():
        missing = [n for n in settings.__annotations__ if f"{package}.{n}".lstrip(".") not in runs[0].raw]
        assert missing == (["momentum"] if package == "optimizer" else []), package


def test_strategies_are_those_of_lightning() -> None:
    assert {"auto", *StrategyRegistry.available_strategies()} == set(get_args(Strategy))


def test_a_sweep_of_a_wrong_number_of_trials_is_reported() -> None:
    overrides = ["sweep=optimizer", "hydra.sweeper.n_trials=-7"]
    assert faults_of(config_dir(), None, overrides, multirun=True) == [
        "hydra.sweeper.n_trials=-7: must be an integer of at least 1 (override hydra.sweeper.n_trials=-7)\n"
        "    fix: hydra.sweeper.n_trials=1"
    ]


def test_a_value_is_explained_with_its_origin_once() -> None:
    assert faults("fusion=mlb", "fusion.joint_dim=-7", "fusion.missing=neutrale", "dim=0") == [
        "dim=0: must be an integer between 1 and 1048576 (override dim=0)\n    fix: dim=128",
        "fusion.joint_dim=-7: must be an integer between 1 and 1048576 (override fusion.joint_dim=-7)\n"
        "    fix: fusion.joint_dim=256",
        "fusion.missing=neutrale: must be one of identity, learned (override fusion.missing=neutrale)\n"
        "    fix: fusion.missing=identity",
    ]


def test_a_component_of_the_users_own_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_knobs.py").write_text(
        "from typing import Annotated, Literal\nfrom annotated_types import Ge\n"
        "class Mine:\n"
        "    def __init__(self, *, dims: dict, dim: int, way: Literal['a', 'b'], n: Annotated[int, Ge(2)]): ...\n"
    )
    (tmp_path / "fusion").mkdir()
    yaml_of_mine = "_target_: mine_knobs.Mine\ndim: ${dim}\nway: a\nn: 2\n"
    (tmp_path / "fusion" / "mine.yaml").write_text(yaml_of_mine)
    monkeypatch.syspath_prepend(tmp_path)
    result = faults_of(config_dir(), str(tmp_path), ["fusion=mine", "fusion.way=c", "fusion.n=1"], multirun=False)
    assert [fault.splitlines()[1] for fault in result] == ["    fix: fusion.way=a", "    fix: fusion.n=2"]
