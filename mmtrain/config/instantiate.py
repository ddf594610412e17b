"""Builds the object of a `_target_`, and decides which targets the configuration of a run folder may name.

What the command line, `--config-dir` and the shipped YAML files name is the user's own choice and is trusted, as in any
Hydra program. A run folder may come from a stranger. Its configuration may name a component only: a class or function
that a shipped YAML file names, or one of a few library classes at the key where it belongs. A prefix such as `mmtrain.`
would not do, because `mmtrain.modes.run.os.system` begins with it, too. The check imports nothing.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmtrain.annotations import FLATTENED
from mmtrain.config.compose import config_dir
from mmtrain.config.signatures import is_defined
from mmtrain.errors import ConfigError

__all__ = [
    "add_working_folder",
    "check_trust",
    "construct",
    "get_class",
    "get_object",
    "instantiate",
    "is_component",
    "is_trusted",
    "make",
    "refused_targets",
    "shipped_values",
    "signature_of",
]

T = TypeVar("T")

TRUST = "a package of your own whose classes the run may name; may be given several times"

# Library classes by the first word of their key. Shipped YAML files name some of them, and the command line may choose
# others. No reader of a run folder builds them.
LIBRARY_CLASSES: Mapping[str, re.Pattern[str]] = {
    "optimizer": re.compile(r"torch\.optim\.[A-Z][A-Za-z0-9]*"),
    "callbacks": re.compile(
        r"pytorch_lightning\.callbacks\."
        r"(DeviceStatsMonitor|EarlyStopping|EMAWeightAveraging|LearningRateMonitor|ModelSummary|RichModelSummary"
        r"|RichProgressBar|StochasticWeightAveraging|Timer|TQDMProgressBar|WeightAveraging)"
    ),
    "trial": re.compile(r"optuna\.pruners\.[A-Z][A-Za-z0-9]*"),
}
# Components whose construction has an effect: a logger opens a connection, a data set writes a cache. They are accepted
# only at their own key.
ONLY_BELOW: Mapping[str, str] = {
    "mmtrain.training.callbacks.": "callbacks",
    "mmtrain.data.": "data",
    "mmtrain.training.loggers.": "logger",
    "mmtrain.cli.sweeps.": "hydra",
}


@cache
def components() -> frozenset[str]:
    """Classes and functions of mmtrain and peft that a shipped YAML file names.

    A new component needs a YAML file anyway, so there is no list to edit.
    """
    lines = (line for text in _shipped_texts() for line in text.splitlines())
    targets = {name for line in lines for name in re.findall(r"\b_target_: *([\w.]+)", line.partition("#")[0])}
    return frozenset(name for name in targets if name.startswith(("mmtrain.", "peft.")))


@cache
def shipped_values(target: str) -> Mapping[str, Any]:
    """Numbers and words that a shipped YAML file sets for a component; for several files, their common values."""
    if target not in components():
        return {}
    texts = (text for text in _shipped_texts() if re.search(rf"^_target_: *{re.escape(target)}\b", text, re.MULTILINE))
    nodes: list[dict[str, Any]] = [yaml.safe_load(text) for text in texts]
    return {
        key: value
        for key, value in (nodes[0].items() if nodes else ())
        if key != "defaults"  # Hydra's list
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
    """Whether a target is a class or function that a package of the user defines.

    Imports of such a package do not count: `mine.os.system` is not a part of `mine`.

    Args:
        target: the dotted path.
        trust: packages or modules; `mine` means `mine.` and what follows, not `mineral.`.
    """
    return any(f"{target}.".startswith(f"{package}.") for package in trust) and is_defined(target)


def refused_targets(node: Any, key: str, trust: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each `_target_` below a node that a run folder must not name, with the key of its node.

    Args:
        node: plain lists and dicts, without interpolations.
        key: of the node; empty for a complete configuration.
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
    """Return the packages that the user trusts.

    Raises:
        ConfigError: for a value that is not a list of dotted names, or that names the standard library or mmtrain.
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

    Imports from a run folder are not allowed, because a stranger may have made it.

    Args:
        run: the run folder that the command names, or a checkpoint in it; None if there is none.
    """
    here = Path.cwd()
    if run is not None:
        folder = run.parent.parent if os.path.isfile(run) else run  # noqa: PTH113 - Path.is_file can raise
        is_run = os.path.isfile(folder / "config.yaml")  # noqa: PTH113
        if is_run and here.resolve().is_relative_to(folder.resolve()):
            return
    sys.path.append(str(here))


def make(cfg: DictConfig, key: str, **parts: Any) -> Any:
    """Instantiate a node. Values that its constructor refuses are errors of the configuration.

    Args:
        cfg: a node with `_target_`.
        key: of the node, for messages.
        parts: passed to the constructor unchanged (Hydra would turn data classes among them into dicts).

    Raises:
        ConfigError: naming the node.
    """
    try:
        if not parts and not _flattened(get_object(cfg._target_)):
            return instantiate(cfg, _convert_="all")
        call = instantiate(cfg, _convert_="all", _partial_=True)
        return construct(call.func, *call.args, **(call.keywords | parts))
    except (InstantiationException, ImportError, ValueError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ConfigError):
            raise cause from error
        if isinstance(cause, ValueError):
            raise ConfigError(f"{key}: {cause}") from error
        if isinstance(cause, ImportError) or "Error locating target" in str(error):
            raise ConfigError(f"{key}._target_={cfg._target_}: cannot be imported: {cause or error}") from error
        node, place = cfg, key
        inside = re.search(r"full_key: ([\w.]+)", str(error))  # Hydra's, of a node in this one
        if inside and isinstance(OmegaConf.select(cfg, inside[1]), DictConfig):
            node, place, parts = OmegaConf.select(cfg, inside[1]), f"{key}.{inside[1]}", {}
        if isinstance(cause, TypeError) and not _takes(node, parts):
            what = f"{place}._target_={node._target_}: cannot be called with these options: {cause}"
            raise ConfigError(f"{what}\n    fix: change the options in {place}") from error
        raise


def construct(kind: Callable[..., T], /, *args: Any, **arguments: Any) -> T:
    """Call a class or function, with the arguments of its `Flattened` arguments next to its own.

    Args:
        kind: the class or function.
        args: positional arguments.
        arguments: keyword arguments.
    """
    for name, part in _flattened(kind).items():
        if name not in arguments:
            taken = [key for key in inspect.signature(part).parameters if key in arguments]
            arguments[name] = part(**{key: arguments.pop(key) for key in taken})
    return kind(*args, **arguments)


def signature_of(kind: Callable[..., Any]) -> inspect.Signature:
    """The signature of a class or function, with the arguments of the class in place of each `Flattened` argument."""
    own, parts = inspect.signature(kind), _flattened(kind)
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        parameters += inspect.signature(parts[name]).parameters.values() if name in parts else [parameter]
    return own.replace(parameters=sorted(parameters, key=lambda parameter: parameter.kind))


def _flattened(kind: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The class of each `Flattened` argument."""
    try:
        hints = {name: parameter.annotation for name, parameter in inspect.signature(kind).parameters.items()}
    except ValueError:  # compiled code may have no signature
        return {}
    annotated = {name: hint for name, hint in hints.items() if get_origin(hint) is Annotated}
    return {name: hint.__origin__ for name, hint in annotated.items() if FLATTENED in hint.__metadata__}


def _takes(cfg: DictConfig, parts: Mapping[str, Any]) -> bool:
    """Whether the class or function of a node takes what it is given."""
    function = signature_of(get_object(cfg._target_))
    given = {str(k): v for k, v in cfg.items() if not re.fullmatch(r"_\w+_", str(k))}
    try:
        function.bind_partial(**given, **parts) if cfg.get("_partial_") else function.bind(**given, **parts)
    except TypeError:
        return False
    return True
