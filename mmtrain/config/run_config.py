"""The configuration in a run folder: its `config.yaml`, and the recorded overrides that a later command repeats.

A run folder may come from a stranger. Both are therefore checked before anything is composed, imported or built.
`config.yaml` contains plain values, because mmtrain writes them resolved. An interpolation in it is refused.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtrain.config.instantiate import refused_targets, shipped_values
from mmtrain.config.moved import update_targets, with_current_paths
from mmtrain.config.renamed import current_override, update_keys, without_hydra
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import damaged, read_text

NAME = "config.yaml"
MAX_BYTES = 4 * 2**20
MAX_VALUES = 100_000
MAX_DEPTH = 50

# Top-level keys that describe the model and the data. A later command accepts any plain value of them.
DESCRIBES = ("data", "encoder", "fusion", "task", "balance", "modality_balance", "seed", "dim", "monitor", "test")
# Options of these groups are accepted by name. Of the values below them, only keys of the Trainer are accepted.
BY_NAME = ("trainer", "callbacks", "experiment")
# These belong to the training, to its machine or to the current command, and are never accepted. Of all other keys,
# such as `checkpoint` and the user's own, numbers and words are accepted, but no paths and no nested values.
NEVER = (
    *("mode", "run_dir", "resume", "resume_allow", "init_from", "overrides", "trust", "trial", "sweep", "hydra"),
    *("search", "predict", "plan", "logger", "optimizer", "schedule"),
)
# Keys that earlier versions recorded and that no longer have an effect.
RETIRED = {"mmtrain.balance.mgda.MGDA": ("epsilon", "max_iters")}
# Keys that earlier versions do not have and that stay absent. The defaults of the component are what those versions
# did, but a shipped value of auto would mean the value of the pretrained weights.
ABSENT = dict.fromkeys(
    ("mmtrain.data.inputs.image.ImageInput", "mmtrain.data.inputs.images.ImagesInput"),
    ("resize_size", "interpolation", "crop_offset", "resize_backend", "max_patches", "patch_size"),
)
_FILES = "mmtrain.data.sources.files.existing_folder"
_SETS = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
_OPTION = re.compile(r"[A-Za-z0-9_][\w.-]*")
_WORD = re.compile(r"[\w.,:+-]*")
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


def read_run_config(folder: Path) -> DictConfig:
    """Read the configuration of a run for inspection. Nothing may be built from it: see `load_run_config`.

    Raises:
        ConfigError: if there is none, or mmtrain cannot have written it.
    """
    path = folder / NAME
    fix = "restore the file that mmtrain wrote, or name another run folder"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: not the folder of a run, because it has no {NAME}\n    fix: name the folder of a training run"
        )
    if path.stat().st_size > MAX_BYTES:
        raise damaged(path, f"larger than {MAX_BYTES // 2**20} MiB", fix=fix)
    text = read_text(path, fix=fix)
    try:
        values = yaml.safe_load(text)
        _check_values(values)  # before OmegaConf expands aliases
        if not isinstance(values, dict) or not isinstance(values.get("overrides"), list):
            raise ValueError("no list of overrides")
        cfg = OmegaConf.create(text)
        plain = OmegaConf.to_container(cfg, resolve=False)
        _check_values(plain)
        if not isinstance(plain, dict) or not all(isinstance(override, str) for override in plain["overrides"]):
            raise ValueError("an override is not text")
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not written by mmtrain: {message}\n    fix: {fix}") from error
    assert isinstance(cfg, DictConfig)
    update_targets(cfg)
    update_keys(cfg)
    return cfg


def _check_values(node: Any) -> None:
    """Check that there are not too many values, and no interpolation.

    Raises:
        ValueError: otherwise.
    """
    waiting, seen = [(node, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("too many values")
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"the interpolation {value[:80]!r}, but mmtrain writes resolved values")
        if isinstance(value, Mapping):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(part, depth + 1) for part in value]


def load_run_config(folder: Path, *, trust: Sequence[str]) -> DictConfig:
    """Load the configuration of a run, to build its model.

    Args:
        folder: of the run.
        trust: packages of the user whose classes the configuration may name.

    Raises:
        ConfigError: as `read_run_config`, and for a `_target_` that is not a component.
    """
    cfg = read_run_config(folder)
    plain = OmegaConf.to_container(cfg, resolve=False)
    if faults := [refusal(key, target, folder) for key, target in refused_targets(plain, "", trust)]:
        raise ConfigError("\n".join(faults))
    cfg = OmegaConf.create(_as_of_today(plain))
    cfg.trust = list(trust)  # from the user, not from the run folder
    return cfg


def _as_of_today(node: Any) -> Any:
    """A configuration of an earlier version, with shipped values for keys that components have since got."""
    if isinstance(node, list):
        return [_as_of_today(part) for part in node]
    if not isinstance(node, dict):
        return node
    target = node.get("_target_", "")
    retired, shipped = RETIRED.get(target, ()), shipped_values(target)
    known = {key: _as_of_today(value) for key, value in node.items() if key not in retired}
    absent = ABSENT.get(target, ())
    return {**{key: value for key, value in shipped.items() if key not in (*known, *absent)}, **known}


def refusal(key: str, target: Any, folder: Path) -> str:
    """The fault of a target that is not a component, and the fix."""
    package = str(target).split(".")[0]
    fix = "do not use this run folder, unless you know who made it; docs/safety.md says how to allow a package"
    if package.isidentifier() and package not in _installed():
        fix = (
            f"if you know who made the run folder, trust=[{package}]"
            f' (in Python trust=["{package}"], for scripts --trust {package})'
        )
    where = folder / NAME
    return f"{key}._target_={target}: a run folder may only name components of mmtrain ({where})\n    fix: {fix}"


@cache
def _installed() -> frozenset[str]:
    """Packages that are not the user's own, which a message must not suggest to trust."""
    from importlib.metadata import packages_distributions  # only a message needs it

    return frozenset((*sys.stdlib_module_names, "mmtrain", *packages_distributions()))


def recorded_overrides(
    cfg: DictConfig, folder: Path, *, requested: Collection[str], configs: Sequence[Path], trust: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The overrides of a run that describe its model and its data.

    Args:
        cfg: the configuration of the run, from `read_run_config`.
        folder: of the run.
        requested: keys and groups that this command line sets. Values of the run below them are omitted.
        configs: folders of YAML files in which options are searched, the shipped ones first.
        trust: packages of the user whose classes the overrides may name.

    Returns:
        The overrides, and the faults of those that must not be repeated.
    """
    below = tuple(f"{key}.".replace("/", ".") for key in (*requested, *_replaced_tables(cfg, requested)))
    kept: list[str] = []
    faults: list[str] = []
    plain = without_hydra(cfg)
    for recorded in [*cfg.overrides, *_references(cfg)]:
        text = current_override(recorded, plain)
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            faults.append(_fault(text, f"not an override: {str(error).splitlines()[0]}", folder))
            continue
        if any(f"{place}.".replace("/", ".").startswith(below) for place in _places(override)):
            continue
        try:
            if _is_choice(override, configs):
                taken, refused = _takes_option(override, configs), []
            else:
                taken = _takes_value(override, _trainer_keys(configs[0]))
                sets = taken and override.type is not OverrideType.DEL
                node = with_current_paths(_nested(override.key_or_group, override.value())) if sets else {}
                refused = [refusal(key, target, folder) for key, target in refused_targets(node, "", trust)]
        except ValueError as error:
            taken, refused = False, [_fault(text, str(error), folder)]
        faults += refused
        kept += [text] if taken and not refused else []
    return kept, faults


def _replaced_tables(cfg: DictConfig, requested: Collection[str]) -> tuple[str, ...]:
    """The tables of a run that other ones, which this command line names, take the place of.

    `data.root` is a folder of tables there, or what the paths start from in the files of the splits.
    """
    keys = ("data.train", "data.val", "data.test")
    is_of_files = OmegaConf.select(cfg, "data.source._target_") == _FILES
    if not is_of_files or not {"data.root", *keys} & set(requested):
        return ()
    had_files = any(OmegaConf.select(cfg, key) is not None for key in keys)
    return keys if had_files else (*keys, "data.root")


def _fault(text: str, problem: str, folder: Path) -> str:
    fix = "set it on this command line, which replaces the value of the run folder, or name another run folder"
    return f"{text}: {problem} ({folder / NAME})\n    fix: {fix}"


def _references(cfg: DictConfig) -> Iterator[str]:
    """The reference models of tasks, which follow from the `init_from` of the training."""
    tasks = cfg.get("task")
    for name in map(str, tasks if isinstance(tasks, DictConfig) else ()):
        task = tasks.get(name)
        reference = task.get("reference") if isinstance(task, DictConfig) else None
        if isinstance(reference, str) and re.fullmatch(r"\w[\w-]*", name):
            yield f"task.{name}.reference={QuotedString(text=reference, quote=Quote.single).with_quotes()}"


def _places(override: Override) -> list[str]:
    """The key or group that an override changes, and the package of its option."""
    named = override.key_or_group
    return [named] if override.package is None else [f"{named}@{override.package}", override.package]


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A tree in which a dotted key has a value."""
    for word in reversed(key.split(".")):
        value = {word: value}
    return dict(value)


def _is_choice(override: Override, configs: Sequence[Path]) -> bool:
    group = override.key_or_group
    return override.package is not None or "/" in group or any((folder / group).is_dir() for folder in configs)


def _takes_option(override: Override, configs: Sequence[Path]) -> bool:
    """Whether options of a group are accepted.

    Raises:
        ValueError: if mmtrain never writes such an override, or the option does not exist.
    """
    group, package = override.key_or_group, override.package
    top = group.split("/")[0]
    if package is not None and (top in (*NEVER, *BY_NAME) or package.split(".")[0] not in DESCRIBES):
        raise ValueError("a run folder must not put an option there")
    if top in NEVER:
        return False
    if override.type is OverrideType.DEL:
        return True
    value: Any = override.value()
    for name in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(name, str) or not _OPTION.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an option")
        if not any((folder / group / f"{name}.yaml").is_file() for folder in configs):
            raise ValueError(f"{group} has no option {name}; add --config-dir DIR if it is your own file")
    return True


def _takes_value(override: Override, trainer_keys: Collection[str]) -> bool:
    """Whether a value is accepted.

    Raises:
        ValueError: if mmtrain never writes such an override.
    """
    words = override.key_or_group.split(".")
    if words[0] in NEVER:
        return False
    if override.type is OverrideType.DEL:
        return True
    if words[0] in BY_NAME and words[:2] not in [["trainer", key] for key in trainer_keys]:
        return False
    if not _KEY.fullmatch(override.key_or_group) or "_target_" in words[:-1]:
        raise ValueError("not a key")
    if override.is_sweep_override() or override.type not in _SETS:
        raise ValueError("a run has one value, not several")
    value: Any = override.value()
    _check_values(value)
    return words[0] in DESCRIBES or _is_plain(value)


def _trainer_keys(configs: Path) -> list[str]:
    """Keys of the shipped trainers."""
    return re.findall(r"^(\w+):", (configs / "trainer" / "cpu.yaml").read_text(encoding="utf-8"), re.MULTILINE)


def _is_plain(value: Any) -> bool:
    """Whether it is a number, a bool, null or a word, which cannot be a path."""
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, bool | int | float)
