"""Every value must be allowed by its constructor: a known word, or a number in its range."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmtrain.config.constraints import Constraint, constraints_of
from mmtrain.config.provenance import ComposedConfig
from mmtrain.config.settings import BY_KEY, BY_TARGET, ModelConfig

# The annotations of these libraries are often narrower than what they accept.
LIBRARIES = frozenset(
    ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "peft", "transformers", "timm", "optuna")
)
TUNING = "mmtrain.layers.finetuning.Tuning"
# Names in other programs.
SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "mode": {
        "train": "fit",
        "training": "fit",
        "eval": "test",
        "evaluate": "test",
        "infer": "predict",
        "embed": "predict",
        "talk": "chat",
        "find": "search",
        "query": "search",
    },
    "trainer.strategy": {"fsdp2": "fsdp", "ddp2": "ddp", "fully_sharded": "fsdp", "distributed": "ddp"},
    "trainer.precision": {
        **dict.fromkeys(("fp16", "float16", "half", "amp", "mixed"), "16-mixed"),
        **dict.fromkeys(("bfloat16", "bf16-amp"), "bf16-mixed"),
        **dict.fromkeys(("fp32", "float32", "full", "single"), "32"),
        **dict.fromkeys(("fp64", "float64", "double"), "64"),
    },
}


def rule_values(run: ComposedConfig) -> Iterator[str]:
    """The annotation of its argument allows a value."""
    reported: set[str] = set()
    for key, constraint in sorted(annotated_keys(run), key=lambda each: run.root(each[0]) != each[0]):
        root = run.root(key)
        value = _value(run, key, root)
        if root in reported or constraint.allows(value) or _is_filled_in(run, key, value):
            continue
        reported.add(root)
        allowed = _described(constraint, run.default(key))
        what = f"must be {allowed}" if root == key else f"{key} must be {allowed}"
        yield f"{root}={_written(value)}: {what} ({run.where(key)})\n    fix: {_fix(run, root, constraint, value)}"


def annotated_keys(run: ComposedConfig) -> Iterator[tuple[str, Constraint]]:
    """Every key whose values an annotation restricts: of components, of the program itself, and of library classes."""
    built = _built(run)
    for package, settings in BY_KEY.items():
        yield from _below(run, package, _fields(settings), built)
    for package, target in built.items():
        if target is not None and target in BY_TARGET:
            yield from _below(run, package, _fields(BY_TARGET[target]), built)
        elif target is not None and target.partition(".")[0] not in LIBRARIES:
            yield from _below(run, package, constraints_of(target), built)
            if package.startswith("encoder."):
                yield from _below(run, package, constraints_of(TUNING), built)
    for package in [key for key in run.raw if key.endswith(".config")]:
        yield from _below(run, package, _fields(ModelConfig), built)


def _built(run: ComposedConfig) -> dict[str, str | None]:
    """The nodes that become objects with their `_target_`, and the nodes around them with None."""
    nodes: dict[str, str | None] = {}
    for key in run.raw:
        package, _, name = key.rpartition(".")
        if name == "_target_":
            target = run.get(key)
            nodes[package] = target if isinstance(target, str) else None
            while package := package.rpartition(".")[0]:
                nodes.setdefault(package, None)
    return nodes


def _fields(settings: type) -> Mapping[str, Constraint]:
    return constraints_of(f"{settings.__module__}.{settings.__name__}")


def _below(
    run: ComposedConfig, package: str, constraints: Mapping[str, Constraint], built: Mapping[str, str | None]
) -> Iterator[tuple[str, Constraint]]:
    """The keys of a node with what they allow. A key that becomes an object is not one of them."""
    for name, constraint in constraints.items():
        key = f"{package}.{name}" if package else name
        if key in run.raw and key not in built:
            yield from _with_nested(run, key, constraint)


def _with_nested(run: ComposedConfig, key: str, constraint: Constraint) -> Iterator[tuple[str, Constraint]]:
    """A key, or the keys inside its mapping."""
    inside, value = constraint.in_mappings, run.raw[key]
    if inside is not None and isinstance(value, Mapping):
        for name in value:
            yield from _with_nested(run, f"{key}.{name}", inside)
    elif inside is None or not isinstance(run.default(key), Mapping):  # else rule_kinds reports it
        yield key, constraint


def _is_filled_in(run: ComposedConfig, key: str, value: Any) -> bool:
    """Whether the program sets the value: one that is missing, an interpolation, or `auto` if that is the default."""
    default = run.default(key)
    if value is None:
        return default is None or run.raw.get(run.root(key)) == "???"
    return isinstance(value, str) and (value == default == "auto" or value == "???" or "${" in value)


def _value(run: ComposedConfig, key: str, root: str) -> Any:
    """The resolved value. OmegaConf resolves only what is more than a copy, because it takes long."""
    written = run.raw.get(root, "${")
    return written if "${" not in str(written) else _plain(run.get(key))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=False) if isinstance(value, DictConfig | ListConfig) else value


def _described(constraint: Constraint, default: Any = None) -> str:
    words = [*constraint.words, *(["auto"] if default == "auto" and "auto" not in constraint.words else [])]
    others = [str(other) for other in constraint.without_words]
    if len(words) == 1:
        return " or ".join([*others, *words] if others else words)
    return " or ".join([*([f"one of {', '.join(words)}"] if words else []), *others])


def _fix(run: ComposedConfig, key: str, constraint: Constraint, value: Any) -> str:
    """The override that sets an allowed value."""
    words, default, number = constraint.words, _plain(run.default(key)), constraint.nearest(value)
    synonym = SYNONYMS.get(key, {}).get(str(value).lower())
    near = [synonym] if synonym else difflib.get_close_matches(str(value), words, n=1)
    if near:
        return f"{key}={near[0]}"
    if isinstance(value, list):
        value = [_nearest_word(each, constraint.words_in_lists) for each in value]
        kept = list(dict.fromkeys(each for each in value if constraint.allows([each])))
        if kept and constraint.words_in_lists:
            return f"{key}={_written(kept)}"
    if number is not None and isinstance(value, float) and constraint.is_integer and abs(number - value) < 1:
        return f"{key}={number}"
    if (default == "auto" or constraint.allows(default)) and default is not None and default != value:
        return f"{key}={_written(default)}"
    if number is not None:
        return f"{key}={number}"
    return f"{key}={words[0]}" if words else f"set {key} to {_described(constraint, default)}"


def _nearest_word(value: Any, words: list[str]) -> Any:
    return next(iter(difflib.get_close_matches(str(value), words, n=1)), value)


def _written(value: Any) -> str:
    """As it is typed on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
