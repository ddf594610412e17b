"""The one way from a `_target_` to its object, and which targets the configuration of a run folder may name.

What the command line, `--config-dir` and the shipped YAML files name is the user's own choice and is trusted, as in any
Hydra program. A run folder may come from a stranger. Its configuration may name a component only: a class or function
that a shipped YAML file names, or one of a few library classes at the key where it belongs. A prefix such as `mmtrain.`
would not do, because `mmtrain.modes.run.os.system` begins with it, too. The check imports nothing.
"""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmtrain.config.compose import config_dir
from mmtrain.config.signatures import is_defined
from mmtrain.errors import ConfigError

__all__ = [
    "add_working_folder",
    "check_trust",
    "get_class",
    "get_object",
    "instantiate",
    "is_component",
    "is_trusted",
    "make",
    "refused_targets",
    "shipped_values",
]

TRUST = "a package of your own whose classes the run may name; may be given several times"

# Library classes by the first word of the key below which they may stand. Shipped YAML files name some of them, and the
# command line may choose others. No reader of a run folder builds them.
LIBRARY_CLASSES: Mapping[str, re.Pattern[str]] = {
    "optimizer": re.compile(r"torch\.optim\.[A-Z][A-Za-z0-9]*"),
    "callbacks": re.compile(
        r"pytorch_lightning\.callbacks\."
        r"(DeviceStatsMonitor|EarlyStopping|EMAWeightAveraging|LearningRateMonitor|ModelSummary|RichModelSummary"
        r"|RichProgressBar|StochasticWeightAveraging|Timer|TQDMProgressBar|WeightAveraging)"
    ),
    "trial": re.compile(r"optuna\.pruners\.[A-Z][A-Za-z0-9]*"),
}
# Components that have an effect when they are built: a logger opens a connection, a data set writes a cache. They stand
# at their own key alone.
ONLY_BELOW: Mapping[str, str] = {
    "mmtrain.training.callbacks.": "callbacks",
    "mmtrain.data.": "data",
    "mmtrain.training.loggers.": "logger",
    "mmtrain.cli.sweeps.": "hydra",
}


@cache
def components() -> frozenset[str]:
    """Every class and function of mmtrain and peft that a shipped YAML file names.

    A new component needs a YAML file anyway, so no list has to be edited for it.
    """
    lines = (line for text in _shipped_texts() for line in text.splitlines())
    targets = {name for line in lines for name in re.findall(r"\b_target_: *([\w.]+)", line.partition("#")[0])}
    return frozenset(name for name in targets if name.startswith(("mmtrain.", "peft.")))


@cache
def shipped_values(target: str) -> Mapping[str, Any]:
    """The numbers and words that a shipped YAML file gives a component; of several files, those that they share."""
    if target not in components():
        return {}
    texts = (text for text in _shipped_texts() if re.search(rf"^_target_: *{re.escape(target)}\b", text, re.MULTILINE))
    nodes: list[dict[str, Any]] = [yaml.safe_load(text) for text in texts]
    return {
        key: value
        for key, value in (nodes[0].items() if nodes else ())
        if key != "defaults"  # a list of Hydra's, and no value
        and "${" not in str(value)
        and not isinstance(value, dict)
        and all(n.get(key) == value for n in nodes)
    }


@cache
def _shipped_texts() -> list[str]:
    return [file.read_text(encoding="utf-8") for file in sorted(config_dir().rglob("*.yaml"))]


def is_component(target: str, key: str) -> bool:
    """Whether the configuration of a run folder may name a target at a key.

    >>> is_component("mmtrain.encoders.image.vit.ViT", "encoder.image"), is_component("torch.optim.SGD", "optimizer")
    (True, True)
    >>> is_component("mmtrain.modes.run.os.system", "encoder.image")
    False
    >>> is_component("torch.optim.SGD", "encoder.image")
    False
    """
    top = re.split(r"[.\[]", key)[0]
    if target in components():
        return all(top == where for prefix, where in ONLY_BELOW.items() if target.startswith(prefix))
    return top in LIBRARY_CLASSES and LIBRARY_CLASSES[top].fullmatch(target) is not None


def is_trusted(target: str, trust: Sequence[str]) -> bool:
    """Whether a target is a class or function that one of the user's packages defines.

    What such a package merely imports does not count: `mine.os.system` is no part of `mine`.

    Args:
        target: the dotted path.
        trust: packages or modules; `mine` means `mine.` and what follows, not `mineral.`.
    """
    return any(f"{target}.".startswith(f"{package}.") for package in trust) and is_defined(target)


def refused_targets(node: Any, key: str, trust: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Every `_target_` below a node that a run folder may not name, with the key of its node.

    Args:
        node: plain lists and dicts, without interpolations.
        key: of the node; empty for a whole configuration.
        trust: as for `is_trusted`.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            target = node["_target_"]
            if not isinstance(target, str) or not (is_component(target, key) or is_trusted(target, trust)):
                yield key, target
        for name, value in node.items():
            yield from refused_targets(value, f"{key}.{name}" if key else str(name), trust)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from refused_targets(value, f"{key}[{number}]", trust)


def check_trust(trust: Any) -> list[str]:
    """The packages that the user trusts.

    Raises:
        ConfigError: when it is no list of dotted names, or names the standard library or mmtrain.
    """
    packages = [] if trust is None else trust if isinstance(trust, Sequence) and not isinstance(trust, str) else [trust]
    for package in packages:
        if not isinstance(package, str) or not all(word.isidentifier() for word in package.split(".")):
            raise ConfigError(
                f"trust={package}: not the name of a package\n    fix: trust=[mine] for classes of mine.py"
            )
        if package.split(".")[0] in (*sys.stdlib_module_names, "mmtrain", "hydra"):
            raise ConfigError(
                f"trust={package}: not a package of your own; it can run any command\n"
                "    fix: name the package that defines your classes, such as trust=[mine]"
            )
    return list(packages)


def add_working_folder(run: Path | None) -> None:
    """Let Python find the user's own classes in the working folder, after everything that is installed.

    A run folder is no place to import from, because a stranger may have made it.

    Args:
        run: the run folder that the command names, or a checkpoint in it; None when it names none.
    """
    here = Path.cwd()
    if run is not None:
        folder = run.parent.parent if os.path.isfile(run) else run  # noqa: PTH113 - Path.is_file can raise
        is_run = os.path.isfile(folder / "config.yaml")  # noqa: PTH113
        if is_run and here.resolve().is_relative_to(folder.resolve()):
            return
    sys.path.append(str(here))


def make(cfg: DictConfig, key: str, **parts: Any) -> Any:
    """Instantiate a node; what its constructor refuses is the user's configuration.

    Args:
        cfg: a node with `_target_`.
        key: where it stands, for messages.
        parts: handed to the constructor as they are (Hydra would turn data classes among them into dicts).

    Raises:
        ConfigError: naming the node.
    """
    try:
        if not parts:
            return instantiate(cfg, _convert_="all")
        return instantiate(cfg, _convert_="all", _partial_=True)(**parts)
    except (InstantiationException, ValueError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ConfigError):
            raise cause from error
        if isinstance(cause, ValueError):
            raise ConfigError(f"{key}: {cause}") from error
        if isinstance(cause, ImportError) or "Error locating target" in str(error):
            raise ConfigError(f"{key}._target_ = {cfg._target_} cannot be imported: {cause or error}") from error
        node, place = cfg, key
        inside = re.search(r"full_key: ([\w.]+)", str(error))  # Hydra's, of a node in this one
        if inside and isinstance(OmegaConf.select(cfg, inside[1]), DictConfig):
            node, place, parts = OmegaConf.select(cfg, inside[1]), f"{key}.{inside[1]}", {}
        if isinstance(cause, TypeError) and not _takes(node, parts):
            what = f"{place}._target_ = {node._target_} cannot be called so: {cause}"
            raise ConfigError(f"{what}\n    mend the keys of {place}") from error
        raise


def _takes(cfg: DictConfig, parts: Mapping[str, Any]) -> bool:
    """Whether the class or function of a node takes what it is given."""
    function = inspect.signature(get_object(cfg._target_))
    given = {str(k): v for k, v in cfg.items() if not re.fullmatch(r"_\w+_", str(k))}
    try:
        function.bind_partial(**given, **parts) if cfg.get("_partial_") else function.bind(**given, **parts)
    except TypeError:
        return False
    return True
