"""Configuration -> objects. The only heavy module that knows Hydra.

What only the data or another part knows is handed to the parts here, by keyword: `in_dim` to an encoder that takes it,
`dims` to the fusion and the tasks, `known_targets` to the tasks, and a fusion that `decides`. The rest stands in YAML.
"""

import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from hydra import initialize_config_dir
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import DoublePrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer

from mmtrain.config.compose import SIZE_FROM_SCRATCH, Composing, config_dir, fill_sizes
from mmtrain.config.instantiate import check_trust, get_class, get_object, instantiate
from mmtrain.config.moved import update_targets
from mmtrain.config.rules import FIX_SCHEDULE, NO_SCHEDULE, OWN_TRAINER_KEYS
from mmtrain.config.task_inputs import faults_of_tasks, needed_by, tasks_without
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import Worded
from mmtrain.errors import ConfigError, reason_of
from mmtrain.layers.finetuning import KEYS as TUNING_KEYS
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.layers.head import Decides
from mmtrain.model import MultimodalModel
from mmtrain.tasks.policy import ADAPTERS_OFF
from mmtrain.training.callbacks.interruptions import Interruptions
from mmtrain.training.callbacks.model_checkpoint import ModelCheckpoint
from mmtrain.training.callbacks.profile import Profile
from mmtrain.training.callbacks.progress import Progress
from mmtrain.training.checkpoint.io import WholeCheckpoints
from mmtrain.training.checkpoint.load_run import load_teacher
from mmtrain.training.ddp_strategy import DDP, meet_by_file
from mmtrain.training.fsdp.grad_scaler import NAMES as HALF
from mmtrain.training.fsdp.grad_scaler import shared_half
from mmtrain.training.fsdp.strategy import ShardedStrategy
from mmtrain.training.lit_module import (
    LitModel,
    ShardedLitModel,
    ignore_skipped,
    no_attention_items,
    row_number,
)
from mmtrain.training.loggers.csv import CSVMetrics
from mmtrain.training.nonfinite import Skipped
from mmtrain.training.optim.fused import keep_choice, settled
from mmtrain.training.precision.bf16_true import NAME as HALF_WEIGHTS
from mmtrain.training.precision.bf16_true import HalfWeights
from mmtrain.types import Attended, View
from mmtrain.units import duration

SHARDED = "fsdp"  # as trainer.strategy


@runtime_checkable
class KnowsWidth(Protocol):
    """An input whose width only the data says.

    Attributes:
        dim: numbers of a row, or features of a frame.
    """

    dim: int


@runtime_checkable
class WantsOfInput(Protocol):
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
        cfg = Composing(create_config_search_path(str(config_dir()))).compose(list(overrides))
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        resolved = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        resolved.run_dir = str(cfg.run_dir)
        resolved.overrides = list(overrides)
        update_targets(resolved)
        fill_sizes(resolved)
    OmegaConf.resolve(resolved)
    return resolved


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


def build_data(cfg: DictConfig) -> DataModule:
    """The DataModule, of the inputs that some task reads and the targets that some learns; no table is opened yet.

    What an input leaves to the weights of its encoder (`auto`) is written into `cfg`.
    """
    _settle_inputs(cfg)
    taken = inspect.signature(get_class(cfg.data._target_)).parameters
    parts = OmegaConf.masked_copy(
        cfg.data, ["_target_", *(k for k in cfg.data if k in taken)]
    )  # source reads the others
    parts.inputs = OmegaConf.masked_copy(parts.inputs, [m for m in parts.inputs if m in _inputs_read(cfg)])
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
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "tokenizer": None,
}


def _settle_inputs(cfg: DictConfig) -> None:
    """Preprocessing comes with pretrained weights.

    Only `size` may differ from that of the weights: models take other sizes, too. What a picture is resized to before
    its centre is cut out then changes in proportion.

    Raises:
        ConfigError: when the configuration of an input says otherwise.
    """
    read = _inputs_read(cfg)
    for modality, node in cfg.data.inputs.items():
        wanted = _preprocessing(cfg.encoder, str(modality)) if modality in read else {}
        trained_size = wanted.pop("size", SIZE_FROM_SCRATCH)
        if node.get("size") == "auto":
            node.size = trained_size
        if "resize_size" in wanted and isinstance(node.get("size"), int):
            wanted["resize_size"] = _in_proportion(wanted["resize_size"], trained_size, node.size)
        wanted = {key: value for key, value in wanted.items() if key in node}  # an input of the user's may have fewer
        for key in [str(k) for k in node if node[k] == "auto" and k in FROM_SCRATCH]:
            node[key] = wanted.get(key, FROM_SCRATCH[key])
        faults = [
            f"data.inputs.{modality}.{key} = {_plain(node[key])}, but the weights of encoder.{modality} were trained"
            f" with {_plain(value)}\n    set data.inputs.{modality}.{key} to {_mend(key, value)}"
            for key, value in wanted.items()
            if not _is_same(node[key], value)
        ]
        if faults:
            raise ConfigError("\n".join(faults))
        if "size" in node:
            _replace_auto(cfg.encoder.get(modality), "image_size", node.size)
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
    """Write a size where it was copied from an input before the weights said it."""
    if isinstance(node, DictConfig):
        for name, part in node.items():
            if name == key and part == "auto":
                node[name] = value
            _replace_auto(part, key, value)


def _preprocessing(encoders: DictConfig, modality: str) -> dict[str, Any]:
    """What the weights of an encoder, or of one inside it, want of its input."""
    if modality not in encoders:
        return {}
    key, node = f"encoder.{modality}", encoders[modality]
    inner = [part for name, part in node.items() if isinstance(part, DictConfig) and "_target_" in part]
    wanted: dict[str, Any] = {}
    for part in [*inner, node]:
        target = get_object(part._target_)
        if isinstance(target, type) and issubclass(target, WantsOfInput):
            takes = inspect.signature(target.preprocessing).parameters
            plain = OmegaConf.to_container(OmegaConf.masked_copy(part, [k for k in part if k in takes]))
            assert isinstance(plain, dict)
            try:
                wanted |= target.preprocessing(**{str(k): v for k, v in plain.items()})
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from error
    # it comes from files of others and becomes part of the configuration, in which a mapping could name code to run
    if strange := [name for name, value in wanted.items() if not _is_setting(value)]:
        raise ConfigError(
            f"{key}: the weights say that {strange[0]} is {str(wanted[strange[0]])[:80]}, which is no setting"
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


def _mend(key: str, value: Any) -> str:
    return "auto" if key in FROM_SCRATCH else str(value)


def build_model(cfg: DictConfig, data: DataModule) -> MultimodalModel:
    """The encoders that some task reads, the fusion if one does, the tasks."""
    read = modalities_read(cfg, data)
    encoders = {m: _encoder(cfg.encoder[m], m, data) for m in read}
    dims = {m: encoder.dim for m, encoder in encoders.items()}
    fusion = None
    if any("fused" in reads_of(task) for task in cfg.task.values()):
        fusion = make(cfg.fusion, "fusion", dims=dims)
        dims = dims | {"fused": fusion.dim}
    decides = fusion if isinstance(fusion, Decides) else None
    inputs = {m: data.inputs[m] for m in encoders}
    facts = {
        "dims": dims,
        "known_targets": data.known_targets,
        "vocabularies": {m: kind.vocabulary() for m, kind in inputs.items() if isinstance(kind, Worded)},
        "encoders": encoders,
        "decides": decides,
    }
    tasks = {name: _task(cfg, name, facts, data) for name in cfg.task}
    return MultimodalModel(encoders=encoders, fusion=fusion, tasks=tasks)


def reads_of(task: DictConfig) -> tuple[str, ...]:
    """What a task's configuration says it reads: its `reads`, or its pair of `modalities`, or its class's own."""
    if "reads" in task:
        return (task.reads,)
    return tuple(get_class(task._target_).__dict__.get("reads", ())) or tuple(task.modalities)


def _inputs_read(cfg: DictConfig) -> set[str]:
    """The modalities that some task reads, itself or through the fusion, if the data has them."""
    reads = {m for task in cfg.task.values() for m in (*reads_of(task), *(task.get("modalities") or ()))}
    return set(map(str, cfg.encoder)) if "fused" in reads else reads


def modalities_read(cfg: DictConfig, data: DataModule) -> list[str]:
    """The modalities of the data whose encoders some task reads, itself or through the fusion.

    Raises:
        ConfigError: when a task needs one, or a target, that the data does not have.
    """
    there = [m for m in data.inputs if m in cfg.encoder]
    faults = faults_of_tasks(
        cfg.task,
        inputs=there,
        targets=data.known_targets,
        columns=next((table.column_names for table in data.tables.values()), []),
        likely=data.likely,
    )
    if said := [fault for _, fault in faults]:
        raise ConfigError("\n".join(said))
    reads = {m for task in cfg.task.values() for m in (*reads_of(task), *needed_by(task))}
    return [m for m in there if m in reads or "fused" in reads]


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
    found = {path: t for m in modalities for path, t in _tunings(cfg.encoder[m], f"encoder.{m}").items()}
    return {path.removeprefix("encoder."): tuning for path, tuning in found.items()}


def _tunings(node: DictConfig, key: str) -> dict[str, Tuning]:
    """By the key of the configuration, the inner ones first: what a part says holds also for what is in it."""
    inner = {str(name): part for name, part in node.items() if isinstance(part, DictConfig) and "_target_" in part}
    found = {p: t for name, part in inner.items() if name != "peft" for p, t in _tunings(part, f"{key}.{name}").items()}
    said = {name: node[name] for name in _tuning_keys(node)}
    if said.get("peft") is not None:
        said["peft"] = make(said["peft"], f"{key}.peft")
    try:
        return found | {key: Tuning(**said)}
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
    if isinstance(kind, Worded) and "vocab_size" in cfg:  # a pretrained tokenizer has as many words as it has
        return make(cfg, f"encoder.{modality}", vocab_size=max(cfg.vocab_size, len(kind.words())))
    if "in_dim" not in inspect.signature(get_object(cfg._target_)).parameters:
        return make(cfg, f"encoder.{modality}")
    if not isinstance(kind, KnowsWidth):
        raise ConfigError(
            f"encoder.{modality}._target_ = {cfg._target_} takes in_dim, but data.inputs.{modality} has no width to"
            f" give\n    choose an encoder of {kind.kind} data with encoder/{modality}=NAME"
        )
    return make(cfg, f"encoder.{modality}", in_dim=kind.dim)


def _task(whole: DictConfig, name: str, facts: Mapping[str, Any], data: DataModule) -> nn.Module:
    cfg = whole.task[name]
    given = _facts_for(cfg, facts)
    if "policy" in cfg:  # a task inside a task, of which Hydra does not know the facts
        given["policy"] = make(cfg.policy, f"task.{name}.policy", **_facts_for(cfg.policy, facts))
        cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "policy"])
    for part in ("teacher", "reference"):
        if part in cfg and cfg[part] not in (None, ADAPTERS_OFF):
            key = f"task.{name}.{part}"
            given[part] = load_teacher(
                cfg[part], data, whole.data.inputs, key, build_again, trust=check_trust(whole.trust)
            )
    try:
        return make(cfg, f"task.{name}", **given)
    except ConfigError as error:  # a task does not know the others
        others = ",".join(str(other) for other in whole.task if other != name)
        leave = f"leave it out: task=[{others}]" if others else "choose another task"
        raise ConfigError(str(error).replace("leave the task out", leave)) from error


def _facts_for(cfg: DictConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    accepts = inspect.signature(get_class(cfg._target_)).parameters
    return {k: v for k, v in facts.items() if k in accepts}


def build_again(cfg: DictConfig, folder: Path) -> tuple[LitModel, DataModule]:
    """The model of a run that is done, and its data with the vocabularies that lie in its folder."""
    data = build_data(cfg)
    data.read(folder, training=False)
    return build_lit(cfg, build_model(cfg, data)), data


def build_restored(cfg: DictConfig, folder: Path) -> tuple[LitModel, DataModule]:
    """As `build_again`, but no table is opened."""
    data = build_data(cfg)
    data.restore(folder)
    return build_lit(cfg, build_model(cfg, data)), data


def build_lit(
    cfg: DictConfig,
    model: MultimodalModel,
    *,
    row_id: Callable[[str, int], str] = row_number,
    attention_items: Callable[[View], list[Attended]] = no_attention_items,
    on_step_skipped: Callable[[Skipped], None] = ignore_skipped,
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
    fused = settled(cfg.fused, groups)
    optimizer = make(cfg, "optimizer", params=groups, fused=fused)
    keep_choice(optimizer, fused)
    return optimizer


def _balance(cfg: DictConfig, tasks: list[str]) -> Any:
    takes = inspect.signature(get_object(cfg._target_)).parameters
    return make(cfg, "balance", **({"tasks": tasks} if "tasks" in takes else {}))


def _modality_balance(cfg: DictConfig, model: MultimodalModel) -> Any:
    if "_target_" not in cfg:
        return None
    dims = {m: encoder.dim for m, encoder in model.encoders.items()}
    return make(cfg, "modality_balance", tasks=model.named_tasks(), dims=dims)


def build_trainer(
    cfg: DictConfig, *, monitor: str | None, resume_step: int | None, extra: Sequence[Callback] = ()
) -> Trainer:
    """The Lightning Trainer with its callbacks (and extra ones) and loggers."""
    torch.backends.cudnn.allow_tf32 = cfg.trainer.tf32  # which torch allows unless told, but not for matrices
    torch.set_float32_matmul_precision("high" if cfg.trainer.tf32 else "highest")
    options = _trainer_options(cfg)
    callbacks = [*build_callbacks(cfg, monitor=monitor), *extra]
    if cfg.trainer.profile:
        options["profiler"] = next(callback.profiler for callback in callbacks if isinstance(callback, Profile))
    own: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": build_loggers(cfg, resume_step=resume_step),
        "plugins": [*options.pop("plugins", []), WholeCheckpoints(background=cfg.checkpoint.background)],
        "default_root_dir": cfg.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    }
    trainer = _trainer({**options, **own})
    meet_by_file(trainer.strategy)
    return trainer


def _trainer_options(cfg: DictConfig) -> dict[str, Any]:
    if cfg.trainer.profile and "profiler" in cfg.trainer:
        raise ConfigError(
            f"trainer.profiler={cfg.trainer.profiler}: trainer.profile=true sets the profiler of the Trainer itself\n"
            "    fix: leave out trainer.profiler, or set trainer.profile=false"
        )
    options = {str(k): v for k, v in cfg.trainer.items() if k not in OWN_TRAINER_KEYS}
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if options["strategy"] == "ddp" or (options["strategy"] == "auto" and several and options["accelerator"] != "tpu"):
        options["strategy"] = DDP()
    if options["strategy"] == SHARDED:  # by FSDP2; Lightning's strategy of that name is the one before it
        options["strategy"] = ShardedStrategy(num_ranks=int(os.environ.get("WORLD_SIZE", "1")))
    own: dict[str, Callable[[], Any]] = {HALF_WEIGHTS: HalfWeights}
    if isinstance(options["strategy"], ShardedStrategy):
        own |= {name: partial(shared_half, options["accelerator"]) for name in HALF}
        own |= dict.fromkeys(("64", "64-true"), DoublePrecision)  # which Lightning does not let pass here
    if str(options["precision"]) in own:
        options["plugins"] = [own[str(options.pop("precision"))]()]  # the Trainer takes one or the other
    return options


def _trainer(options: dict[str, Any]) -> Trainer:
    """Lightning's Trainer.

    Raises:
        ConfigError: with what it says of a key, or of this machine.
    """
    try:
        return Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        mend = "set trainer=cpu, or run where one is" if "gpu backend" in said or "No GPU" in said else ""
        raise ConfigError(f"trainer: {said}\n    {mend or 'mend the keys of trainer'}") from error


def check_parts(cfg: DictConfig) -> None:
    """Make every part that needs neither data nor weights, and throw it away: before anything is read.

    Raises:
        ConfigError: with what each of them says that cannot be made so.
    """
    weight = [{"params": [nn.Parameter(torch.zeros(1))]}]
    options = _trainer_options(cfg)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trials: dict[str, Callable[[], Any]] = {
        "optimizer": lambda: _optimizer(cfg.optimizer, weight),
        "schedule": lambda: _check_schedule(cfg.schedule),
        "balance": lambda: _balance(cfg.balance, list(cfg.task)),
        # what is planned may be another machine than this one
        **({"trainer": lambda: _trainer(options | quiet)} if cfg.mode != "plan" else {}),
        **{f"callbacks.{name}": partial(make, node, f"callbacks.{name}") for name, node in cfg.callbacks.items()},
        **{f"encoder.{name}": partial(_tunings, node, f"encoder.{name}") for name, node in cfg.encoder.items()},
    }
    faults = []
    for key, trial in trials.items():
        try:
            trial()
        except ConfigError as error:
            what, *mend = str(error).splitlines()
            if not mend:  # constructors say it behind a semicolon, other libraries not at all
                what, _, said = what.partition("; ")
                mend = [f"    {said or f'mend the keys of {key}'}"]
            asked = [f"override {o}" for o in cfg.overrides if _speaks_of(o, key)]
            faults += [f"{what} ({', '.join(asked)})" if asked else what, *mend]
    if faults:
        raise ConfigError("\n".join(faults))


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


def _speaks_of(override: str, key: str) -> bool:
    named = override.lstrip("+~").split("=")[0].split("@")[-1].replace("/", ".")
    return f"{named}.".startswith(f"{key}.")


def build_callbacks(cfg: DictConfig, *, monitor: str | None) -> list[Callback]:
    """Checkpoints, clean stop, progress, and those of configs/callbacks; without `monitor` the newest is the best."""
    folder = Path(cfg.run_dir) / "checkpoints"
    places: dict[str, Any] = {"dirpath": folder, "save_top_k": 1, "enable_version_counter": False}
    # at the end of validation, so that its state is in the checkpoint that Interruptions writes at the end of the epoch
    best = ModelCheckpoint(
        filename="best", monitor=monitor, mode=cfg.checkpoint.mode, save_on_train_epoch_end=monitor is None, **places
    )
    # Lightning's own save_last only follows a new best
    last = ModelCheckpoint(filename="last", monitor=None, save_on_train_epoch_end=True, **places)
    own = [make(node, f"callbacks.{name}") for name, node in cfg.callbacks.items()]
    interruptions = Interruptions(
        cfg.run_dir,
        every_n_steps=cfg.checkpoint.every_n_steps,
        every_minutes=cfg.checkpoint.every_minutes,
        max_time=duration(cfg.trainer.max_time),
    )
    own += [Profile(cfg.run_dir)] if cfg.trainer.profile else []
    return [*own, *_pruning(cfg, monitor), best, last, interruptions, Progress()]


def _pruning(cfg: DictConfig, monitor: str | None) -> list[Callback]:
    """For a run that Optuna chose."""
    if cfg.trial is None:
        return []
    from mmtrain.training.callbacks.pruning import Pruning  # Optuna is an extra

    pruner = make(cfg.trial.pruner, "hydra.sweeper.pruner")
    return [Pruning(folder=cfg.trial.folder, number=cfg.trial.number, pruner=pruner, monitor=monitor)]


def build_loggers(cfg: DictConfig, *, resume_step: int | None) -> list[Logger]:
    """Csv always; the others as asked. One that takes `resume_step` is told where training goes on."""
    others = []
    for name, node in cfg.logger.items():
        if name == "csv":
            continue
        names = inspect.signature(get_object(node._target_)).parameters
        facts = {"resume_step": resume_step if cfg.mode == "fit" else None} if "resume_step" in names else {}
        others.append(make(node, f"logger.{name}", **facts))
    return [CSVMetrics(cfg.run_dir, resume_step=resume_step), *others]
