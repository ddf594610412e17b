"""Configuration -> objects. The only heavy module that knows Hydra.

What only the data or another part knows is handed to the parts here, by keyword: `in_dim` to an encoder that takes it,
`dims` to the fusion and the tasks, `known_targets` to the tasks, and a fusion that `decides`. The rest is in YAML.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from hydra import initialize_config_dir
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn
from torch.optim import Optimizer

from mmtrain.config.compose import INPUTS_FROM_SCRATCH, ConfigComposer, config_dir, fill_auto
from mmtrain.config.instantiate import check_trust, get_class, get_object, make, signature_of
from mmtrain.config.moved import update_targets
from mmtrain.config.renamed import report, update_keys
from mmtrain.config.rules import FIX_SCHEDULE, NO_SCHEDULE
from mmtrain.config.task_inputs import INPUT_KEYS, faults_of_tasks, required_modalities, tasks_without
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import HasVocabulary
from mmtrain.errors import ConfigError, reason_of
from mmtrain.layers.finetuning import KEYS as TUNING_KEYS
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.layers.head import LateFusion
from mmtrain.layers.pair_projection import PairProjection, SharedSpace
from mmtrain.model import MultimodalModel
from mmtrain.tasks.policy import ADAPTERS_OFF
from mmtrain.training.checkpoint.load_run import load_teacher
from mmtrain.training.lit_module import (
    LitModel,
    ShardedLitModel,
    ignore_skipped,
    no_attention_items,
    row_number,
)
from mmtrain.training.nonfinite import SkippedStep
from mmtrain.training.optim.fused import pin_fused_on_load, resolve_fused
from mmtrain.training.trainer import SHARDED, make_trainer, trainer_options
from mmtrain.types import AttentionMap, View


@runtime_checkable
class HasWidth(Protocol):
    """An input whose width only the data says.

    Attributes:
        dim: numbers of a row, or features of a frame.
    """

    dim: int


@runtime_checkable
class HasPreprocessing(Protocol):
    """An encoder whose pretrained weights say how its input is prepared."""

    @classmethod
    def preprocessing(cls) -> dict[str, Any]:
        """Keys of the input's configuration; it takes any of the constructor's arguments, and reads no weights."""
        ...


def compose(overrides: Sequence[str]) -> DictConfig:
    """The resolved configuration of a command line, for notebooks, scripts and tests.

    >>> compose(["encoder=resnet", "trainer.max_epochs=3"]).trainer.max_epochs
    3
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        composing = ConfigComposer(create_config_search_path(str(config_dir())))
        overrides, notes = composing.with_current_keys(list(overrides))
        for note in notes:
            report(note)
        cfg = composing.compose(overrides)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        resolved = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        resolved.run_dir = str(cfg.run_dir)
        resolved.overrides = list(overrides)
        update_targets(resolved)
        update_keys(resolved, overrides)
        fill_auto(resolved)
    OmegaConf.resolve(resolved)
    return resolved


@runtime_checkable
class HasSharedSpace(Protocol):
    """An encoder that is a tower of a pretrained pair."""

    @classmethod
    def shared_space(cls) -> SharedSpace:
        """The space into which it projects; it takes any of the constructor's arguments, and reads no weights."""
        ...


def build_data(cfg: DictConfig) -> DataModule:
    """The DataModule, of the inputs that some task reads and the targets that some learns; no table is opened yet.

    What an input leaves to the weights of its encoder (`auto`) is written into `cfg`.
    """
    _resolve_inputs(cfg)
    _resolve_shared_spaces(cfg)
    taken = inspect.signature(get_class(cfg.data._target_)).parameters
    parts = OmegaConf.masked_copy(
        cfg.data, ["_target_", *(k for k in cfg.data if k in taken)]
    )  # source reads the others
    parts.inputs = OmegaConf.masked_copy(parts.inputs, [m for m in parts.inputs if m in _encoded_inputs(cfg)])
    learned = {task.target for task in cfg.task.values() if "target" in task}
    parts.targets = OmegaConf.masked_copy(parts.targets, [t for t in parts.targets if t in learned])
    data: DataModule = make(parts, "data", seed=cfg.seed, num_micro_batches=cfg.trainer.accumulate_grad_batches)
    data.without = {t: others for t in learned if (others := tasks_without(cfg.task, t)) is not None}
    return data


# what `auto` means where no pretrained weights say it; a resize_size of null is `size`
FROM_SCRATCH: Mapping[str, Any] = {
    "resize_size": None,
    "interpolation": "bilinear",
    "crop_offset": "round",
    "resize_backend": "pillow",
    "max_patches": None,
    "patch_size": None,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "tokenizer": None,
    "max_length": INPUTS_FROM_SCRATCH["max_length"],
    **{k: INPUTS_FROM_SCRATCH[k] for k in ("word_dropout", "sample_rate", "max_seconds")},
}
FREE = (
    "max_length",
    "word_dropout",
    "resize_backend",
    "max_seconds",
    "max_patches",
)  # what may differ from the pretraining


def _resolve_inputs(cfg: DictConfig) -> None:
    """Preprocessing comes with pretrained weights.

    Only `size` and what is in `FREE` may differ from the weights: models take other sizes, too. What a picture is
    resized to before its centre is cut out then changes in proportion.

    Raises:
        ConfigError: when the configuration of an input says otherwise.
    """
    read = _encoded_inputs(cfg)
    for modality, node in cfg.data.inputs.items():
        wanted = _preprocessing(cfg.encoder, str(modality)) if modality in read else {}
        trained_size = wanted.pop("size", INPUTS_FROM_SCRATCH["size"])
        if node.get("size") == "auto":
            node.size = trained_size
        if "resize_size" in wanted and isinstance(node.get("size"), int):
            wanted["resize_size"] = _in_proportion(wanted["resize_size"], trained_size, node.size)
        wanted = {key: value for key, value in wanted.items() if key in node}  # an input of the user's may have fewer
        for key in [str(k) for k in node if node[k] == "auto" and k in FROM_SCRATCH]:
            node[key] = wanted.get(key, FROM_SCRATCH[key])
        faults = [
            f"data.inputs.{modality}.{key} = {_plain(node[key])}, but the weights of encoder.{modality} were trained"
            f" with {_plain(value)}\n    set data.inputs.{modality}.{key} to {_fix_for(key, value)}"
            for key, value in wanted.items()
            if key not in FREE and not _is_same(node[key], value)
        ]
        if faults:
            raise ConfigError("\n".join(faults))
        for key, own in (("size", "image_size"), ("max_length", "max_length"), ("sample_rate", "sample_rate")):
            if key in node:
                _replace_auto(cfg.encoder.get(modality), own, node[key])
    image = cfg.data.inputs.get("image")
    if isinstance(image, DictConfig) and "size" in image:
        for part in ("source", "parts"):
            _replace_auto(cfg.data.get(part), "size", image.size)
    if "inputs" in cfg.data.source:  # data=mix shows its parts how they are read
        cfg.data.source.inputs = cfg.data.inputs


def _in_proportion(resize_size: int | list[int], trained_size: int, size: int) -> int | list[int]:
    """What pictures are resized to when the encoder sees `size` instead of the size of its weights.

    >>> _in_proportion(256, 224, 128), _in_proportion([224, 224], 224, 64)
    (146, [64, 64])
    """
    if isinstance(resize_size, list):
        return [side * size // trained_size for side in resize_size]
    return resize_size * size // trained_size


def _replace_auto(node: Any, key: str, value: int) -> None:
    """Write a size where it was copied from an input before the weights determined it."""
    if isinstance(node, DictConfig):
        for name, part in node.items():
            if name == key and part == "auto":
                node[name] = value
            _replace_auto(part, key, value)


def _resolve_shared_spaces(cfg: DictConfig) -> None:
    """Write the width and the loss of contrastive tasks that are `auto`: those of a pretrained pair, if there is one.

    Raises:
        ConfigError: for another width than that of the pair.
    """
    for name, task in cfg.task.items():
        if "projection" not in task or "embed_dim" not in task:
            continue
        spaces = {} if task.projection == "new" else _shared_spaces(cfg.encoder, task.modalities)
        modality, space = next(iter(spaces.items()), (None, None))
        origins = {m: (cfg.encoder[m].get("name"), cfg.encoder[m].get("pretrained")) for m in spaces}
        if len(set(origins.values())) > 1:
            named = ", ".join(f"encoder.{m} ({' '.join(str(o) for o in origin if o)})" for m, origin in origins.items())
            raise ConfigError(
                f"task.{name}.projection={task.projection}: the towers are of different pairs: {named}\n"
                f"    fix: set encoder.pretrained to one pair, or task.{name}.projection to new"
            )
        if space is not None and task.embed_dim not in ("auto", space.dim):
            raise ConfigError(
                f"task.{name}.embed_dim = {task.embed_dim}, but encoder.{modality} projects to {space.dim} dimensions\n"
                f"    set task.{name}.embed_dim to auto, or task.{name}.projection to new"
            )
        if task.embed_dim == "auto":
            task.embed_dim = cfg.dim if space is None else space.dim
        if task.get("loss") == "auto":
            task.loss = "info_nce" if space is None else space.loss


def _shared_spaces(encoders: DictConfig, modalities: Sequence[str]) -> dict[str, SharedSpace]:
    results = {}
    for modality in modalities:
        target = get_object(encoders[modality]._target_) if modality in encoders else None
        if isinstance(target, type) and issubclass(target, HasSharedSpace):
            with _faults_of(f"encoder.{modality}"):
                results[modality] = target.shared_space(**_arguments_of(target.shared_space, encoders[modality]))
    return results


def _arguments_of(function: Callable[..., Any], node: DictConfig) -> dict[str, Any]:
    """The values of a node that a function takes."""
    takes = inspect.signature(function).parameters
    plain = OmegaConf.to_container(OmegaConf.masked_copy(node, [str(k) for k in node if k in takes]))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextmanager
def _faults_of(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _preprocessing(encoders: DictConfig, modality: str) -> dict[str, Any]:
    """What the weights of an encoder, or of one inside it, want of its input."""
    if modality not in encoders:
        return {}
    key, node = f"encoder.{modality}", encoders[modality]
    inner = [part for name, part in node.items() if isinstance(part, DictConfig) and "_target_" in part]
    wanted: dict[str, Any] = {}
    for part in [*inner, node]:
        target = get_object(part._target_)
        if isinstance(target, type) and issubclass(target, HasPreprocessing):
            with _faults_of(key):
                wanted |= target.preprocessing(**_arguments_of(target.preprocessing, part))
    # it comes from files of others and becomes part of the configuration, in which a mapping could name code to run
    if unexpected := [name for name, value in wanted.items() if not _is_setting(value)]:
        raise ConfigError(
            f"{key}: the weights say that {unexpected[0]} is {str(wanted[unexpected[0]])[:80]}, which is no setting"
        )
    return wanted


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, int | float) for part in value)
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _is_same(value: Any, wanted: Any) -> bool:
    value = _plain(value)
    if isinstance(wanted, list) and isinstance(value, list):
        return len(value) == len(wanted) and all(
            math.isclose(a, b, abs_tol=1e-4) for a, b in zip(value, wanted, strict=True)
        )
    return bool(value == wanted)


def _fix_for(key: str, value: Any) -> str:
    return "auto" if key in FROM_SCRATCH else str(value)


def build_model(cfg: DictConfig, data: DataModule) -> MultimodalModel:
    """The encoders that some task reads, the fusion if one does, the tasks."""
    read = encoded_modalities(cfg, data)
    encoders = {m: _encoder(cfg.encoder[m], m, data) for m in read}
    dims = {m: encoder.dim for m, encoder in encoders.items()}
    fusion = None
    if any("fused" in inputs_of_task(task) for task in cfg.task.values()):
        fusion = make(cfg.fusion, "fusion", dims=dims)
        dims = dims | {"fused": fusion.dim}
    decides = fusion if isinstance(fusion, LateFusion) else None
    inputs = {m: data.inputs[m] for m in encoders}
    facts = {
        "dims": dims,
        "known_targets": data.known_targets,
        "vocabularies": {m: kind.vocabulary() for m, kind in inputs.items() if isinstance(kind, HasVocabulary)},
        "encoders": encoders,
        "decides": decides,
    }
    tasks = {name: _task(cfg, name, facts, data) for name in cfg.task}
    _drop_unused_projections(encoders, tasks.values())
    return MultimodalModel(encoders=encoders, fusion=fusion, tasks=tasks)


def _drop_unused_projections(encoders: Mapping[str, Any], tasks: Iterable[nn.Module]) -> None:
    """Remove the pretrained projections that no task uses, so that every parameter gets a gradient."""
    used = {m for task in tasks for m in getattr(task, "pretrained", ())}
    for modality, encoder in encoders.items():
        if modality not in used and isinstance(getattr(encoder, "projection", None), PairProjection):
            encoder.projection = None


def inputs_of_task(task: DictConfig) -> tuple[str, ...]:
    """What a task's configuration says it reads: its `input`, or its pair of `modalities`, or its class's own."""
    if named := [task[key] for key in INPUT_KEYS if key in task]:
        return (named[0],)
    return tuple(get_class(task._target_).__dict__.get("reads", ())) or tuple(task.modalities)


def _encoded_inputs(cfg: DictConfig) -> set[str]:
    """The modalities that some task reads, itself or through the fusion, if the data has them."""
    reads = {m for task in cfg.task.values() for m in (*inputs_of_task(task), *(task.get("modalities") or ()))}
    return {str(m) for m in cfg.encoder if m in cfg.data.inputs} if "fused" in reads else set(map(str, reads))


def encoded_modalities(cfg: DictConfig, data: DataModule) -> list[str]:
    """The modalities of the data whose encoders some task reads, itself or through the fusion.

    Raises:
        ConfigError: when a task needs one, or a target, that the data does not have.
    """
    available = [m for m in data.inputs if m in cfg.encoder]
    faults = faults_of_tasks(
        cfg.task,
        inputs=available,
        targets=data.known_targets,
        columns=next((table.column_names for table in data.tables.values()), []),
        likely=data.guessed_columns,
    )
    if messages := [fault for _, fault in faults]:
        raise ConfigError("\n".join(messages))
    reads = {m for task in cfg.task.values() for m in (*inputs_of_task(task), *required_modalities(task))}
    return [m for m in available if m in reads or "fused" in reads]


def _encoder(node: DictConfig, modality: str, data: DataModule) -> Any:
    """An encoder that learns as its configuration says, and the encoders inside it as theirs."""
    encoder = _untuned_encoder(_without_tuning(node), modality, data)
    for path, tuning in _tunings(node, f"encoder.{modality}").items():
        inner = encoder.get_submodule(path.removeprefix(f"encoder.{modality}").removeprefix("."))
        try:
            tune(inner, tuning)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
    return encoder


def tunings_of(cfg: DictConfig, modalities: Sequence[str]) -> dict[str, Tuning]:
    """How each encoder learns, and each inside another, by the dotted name of the module below `encoders`."""
    results = {path: t for m in modalities for path, t in _tunings(cfg.encoder[m], f"encoder.{m}").items()}
    return {path.removeprefix("encoder."): tuning for path, tuning in results.items()}


def _tunings(node: DictConfig, key: str) -> dict[str, Tuning]:
    """By the key of the configuration, the inner ones first: what a part says holds also for what is in it."""
    inner = {str(name): part for name, part in node.items() if isinstance(part, DictConfig) and "_target_" in part}
    results = {
        p: t for name, part in inner.items() if name != "peft" for p, t in _tunings(part, f"{key}.{name}").items()
    }
    options = {name: node[name] for name in _tuning_keys(node)}
    if options.get("peft") is not None:
        options["peft"] = make(options["peft"], f"{key}.peft")
    try:
        return results | {key: Tuning(**options)}
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from error


def _tuning_keys(node: DictConfig) -> list[str]:
    """Those that are not the constructor's own."""
    taken = inspect.signature(get_object(node._target_)).parameters
    return [name for name in TUNING_KEYS if name in node and name not in taken]


def _without_tuning(node: DictConfig) -> DictConfig:
    bare = node.copy()
    with open_dict(bare):
        for name in _tuning_keys(node):
            del bare[name]
        for name in [str(n) for n, part in bare.items() if isinstance(part, DictConfig) and "_target_" in part]:
            bare[name] = _without_tuning(bare[name])
    return bare


def _untuned_encoder(cfg: DictConfig, modality: str, data: DataModule) -> Any:
    kind = data.inputs[modality]
    if isinstance(kind, HasVocabulary) and "vocab_size" in cfg:  # a pretrained tokenizer has as many words as it has
        return make(cfg, f"encoder.{modality}", vocab_size=max(cfg.vocab_size, len(kind.words())))
    if "in_dim" not in inspect.signature(get_object(cfg._target_)).parameters:
        return make(cfg, f"encoder.{modality}")
    if not isinstance(kind, HasWidth):
        raise ConfigError(
            f"encoder.{modality}._target_ = {cfg._target_} takes in_dim, but data.inputs.{modality} has no width to"
            f" give\n    choose an encoder of {kind.kind} data with encoder/{modality}=NAME"
        )
    return make(cfg, f"encoder.{modality}", in_dim=kind.dim)


def _task(full_cfg: DictConfig, name: str, facts: Mapping[str, Any], data: DataModule) -> nn.Module:
    cfg = full_cfg.task[name]
    given = _facts_for(cfg, facts)
    if "policy" in cfg:  # a task inside a task: Hydra does not know its facts
        given["policy"] = make(cfg.policy, f"task.{name}.policy", **_facts_for(cfg.policy, facts))
        cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "policy"])
    for part in ("teacher", "reference"):
        if part in cfg and cfg[part] not in (None, ADAPTERS_OFF):
            key = f"task.{name}.{part}"
            given[part] = load_teacher(
                cfg[part], data, full_cfg.data.inputs, key, rebuild_from_run, trust=check_trust(full_cfg.trust)
            )
    try:
        return make(cfg, f"task.{name}", **given)
    except ConfigError as error:  # a task does not know the others
        others = ",".join(str(other) for other in full_cfg.task if other != name)
        leave = f"leave it out: task=[{others}]" if others else "choose another task"
        raise ConfigError(str(error).replace("leave the task out", leave)) from error


def _facts_for(cfg: DictConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    accepts = signature_of(get_class(cfg._target_)).parameters
    return {k: v for k, v in facts.items() if k in accepts}


def rebuild_from_run(cfg: DictConfig, folder: Path) -> tuple[LitModel, DataModule]:
    """The model of a run that is done, and its data with the vocabularies that lie in its folder."""
    data = build_data(cfg)
    data.read(folder, training=False)
    return build_lit(cfg, build_model(cfg, data)), data


def rebuild_without_tables(cfg: DictConfig, folder: Path) -> tuple[LitModel, DataModule]:
    """As `rebuild_from_run`, but no table is opened."""
    data = build_data(cfg)
    data.restore(folder)
    return build_lit(cfg, build_model(cfg, data)), data


def build_lit(
    cfg: DictConfig,
    model: MultimodalModel,
    *,
    row_id: Callable[[str, int], str] = row_number,
    attention_items: Callable[[View], list[AttentionMap]] = no_attention_items,
    on_step_skipped: Callable[[SkippedStep], None] = ignore_skipped,
    changed_optimizer_options: Sequence[str] = (),
    checkpoint_step: int | None = None,
) -> LitModel:
    """Return the LightningModule around a model. The other arguments are those of `LitModel`."""
    sizes = {"single": [1], "all": range(1, len(model.encoders))}.get(cfg.test.subsets, [])
    subsets = [s for size in sizes if len(model.encoders) > 1 for s in combinations(model.encoders, size)]
    made = ShardedLitModel if cfg.trainer.strategy == SHARDED else LitModel
    return made(
        model=model,
        balance=_balance(cfg.balance, list(model.tasks)),
        optimizer=partial(_optimizer, cfg.optimizer),
        schedule=make(cfg.schedule, "schedule"),
        seed=cfg.seed,
        gradient_clip_val=cfg.trainer.gradient_clip_val,
        log_every_n_steps=cfg.trainer.log_every_n_steps,
        test_subsets=subsets,
        tunings=tunings_of(cfg, list(model.encoders)),
        modality_balance=_modality_balance(cfg.modality_balance, model),
        gradient_cache=cfg.trainer.gradient_cache,
        row_id=row_id,
        attention_items=attention_items,
        on_step_skipped=on_step_skipped,
        changed_optimizer_options=changed_optimizer_options,
        checkpoint_step=checkpoint_step,
    )


def _optimizer(cfg: DictConfig, groups: list[dict[str, Any]]) -> Optimizer:
    if "fused" not in cfg:
        optimizer: Optimizer = make(cfg, "optimizer", params=groups)
        return optimizer
    fused = resolve_fused(cfg.fused, groups)
    optimizer = make(cfg, "optimizer", params=groups, fused=fused)
    pin_fused_on_load(optimizer, fused)
    return optimizer


def _balance(cfg: DictConfig, tasks: list[str]) -> Any:
    takes = inspect.signature(get_object(cfg._target_)).parameters
    return make(cfg, "balance", **({"tasks": tasks} if "tasks" in takes else {}))


def _modality_balance(cfg: DictConfig, model: MultimodalModel) -> Any:
    if "_target_" not in cfg:
        return None
    dims = {m: encoder.dim for m, encoder in model.encoders.items()}
    return make(cfg, "modality_balance", tasks=model.named_tasks(), dims=dims)


def check_parts(cfg: DictConfig) -> None:
    """Make every part that needs neither data nor weights, and throw it away: before anything is read.

    Raises:
        ConfigError: with what each of them says that cannot be made so.
    """
    weight = [{"params": [nn.Parameter(torch.zeros(1))]}]
    options = trainer_options(cfg)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trials: dict[str, Callable[[], Any]] = {
        "optimizer": lambda: _optimizer(cfg.optimizer, weight),
        "schedule": lambda: _check_schedule(cfg.schedule),
        "balance": lambda: _balance(cfg.balance, list(cfg.task)),
        # what is planned may be another machine than this one
        **({"trainer": lambda: make_trainer(options | quiet)} if cfg.mode != "plan" else {}),
        **{f"callbacks.{name}": partial(make, node, f"callbacks.{name}") for name, node in cfg.callbacks.items()},
        **{f"encoder.{name}": partial(_tunings, node, f"encoder.{name}") for name, node in _encoders(cfg.encoder)},
    }
    faults = []
    for key, trial in trials.items():
        try:
            trial()
        except ConfigError as error:
            what, *fix = str(error).splitlines()
            if not fix:  # constructors say it behind a semicolon, other libraries not at all
                what, _, advice = what.partition("; ")
                fix = [f"    {advice or f'correct the keys of {key}'}"]
            requested = [f"override {o}" for o in cfg.overrides if _concerns(o, key)]
            faults += [f"{what} ({', '.join(requested)})" if requested else what, *fix]
    if faults:
        raise ConfigError("\n".join(faults))


def _encoders(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    """The encoders by modality, without the keys of both towers of a pair."""
    return [(str(name), node) for name, node in cfg.items() if isinstance(node, DictConfig)]


def _check_schedule(cfg: DictConfig) -> None:
    """Call it once.

    Raises:
        ConfigError: for what is no function of the step and the number of steps, such as a scheduler class of torch.
    """
    fix = f"    {FIX_SCHEDULE}"
    what = f"schedule._target_={cfg._target_}: {NO_SCHEDULE}"
    try:
        factor = make(cfg, "schedule")(0, 10)
    except ConfigError as error:
        if not str(cfg._target_).startswith("torch.optim."):
            raise
        raise ConfigError(f"{what}\n{fix}") from error
    except Exception as error:  # it can be any function, which raises what it likes
        raise ConfigError(f"{what}: {reason_of(error)}\n{fix}") from error
    if not isinstance(factor, int | float):
        raise ConfigError(f"{what}: it gives {type(factor).__name__}\n{fix}")


def _concerns(override: str, key: str) -> bool:
    named = override.lstrip("+~").split("=")[0].split("@")[-1].replace("/", ".")
    return f"{named}.".startswith(f"{key}.")
