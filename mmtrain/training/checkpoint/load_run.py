"""A model of another run as a component of this one: a teacher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from mmtrain.config.instantiate import check_trust
from mmtrain.config.run_config import NAME, load_run_config
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import HasVocabulary
from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.load import best_checkpoint, check_same_model, check_same_names, load_checkpoint
from mmtrain.training.lit_module import LitModel

# preprocessing of images and videos before the configuration had these keys
GEOMETRY = {"resize_size": None, "interpolation": "bilinear", "crop_offset": "round", "resize_backend": "pillow"}
# keys that change inputs only in training, or limit what is read
FREE_INPUT_KEYS = (
    "crop_scale",
    "flip",
    "rotate",
    "color_jitter",
    "word_dropout",
    "noise",
    "time_mask",
    "freq_mask",
    "max_pixels",
)


Build = Callable[[DictConfig, Path], tuple[LitModel, DataModule]]  # `mmtrain.build.rebuild_from_run`


class LoadedRun(NamedTuple):
    """The content of a run folder, with one of its checkpoints.

    Attributes:
        lit: with the weights, in evaluation mode.
        data: with its vocabularies.
        cfg: configuration of the run.
        path: path of the checkpoint.
        step: step of the checkpoint.
    """

    lit: LitModel
    data: DataModule
    cfg: DictConfig
    path: Path
    step: int


def load_run(run: str | Path, build: Build, *, trust: Sequence[str] = ()) -> LoadedRun:
    """Build the model of a run and load its weights.

    Only code of components is run; see `mmtrain.config.instantiate`.

    Args:
        run: a run folder, whose best checkpoint is used, or a checkpoint.
        build: builds the model of a configuration with the vocabularies of a run folder.
        trust: packages of your own whose classes the run may name, such as `["mine"]`.

    Raises:
        ConfigError: if there is none, it does not match its configuration, or the configuration names something that is
            not a component.
    """
    run = Path(run).expanduser()
    path = run if run.is_file() else best_checkpoint(run)
    folder = path.parent.parent
    cfg = load_run_config(folder, trust=check_trust(trust))
    checkpoint = load_checkpoint(path)
    try:
        lit, data = build(cfg, folder)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise ConfigError(f"{folder / NAME}: {message}\n    fix: restore the file that mmtrain wrote") from error
    check_same_names(checkpoint, data.names(), path)
    check_same_model(checkpoint, lit, path)
    lit.load_state_dict(checkpoint["state_dict"])
    return LoadedRun(lit.eval(), data, cfg, path, checkpoint["global_step"])


def load_teacher(
    run: str, data: DataModule, inputs: DictConfig, key: str, build: Build, *, trust: Sequence[str]
) -> nn.Module:
    """Load the model of a run with the same inputs as this one.

    Args:
        run: a run folder or a checkpoint.
        data: data of this run.
        inputs: inputs of this run, by modality.
        key: key of the configuration, for messages.
        build: see `load_run`.
        trust: see `load_run`.

    Raises:
        ConfigError: if its inputs differ.
    """
    place = Path(run).expanduser()
    if not place.exists():
        raise ConfigError(f"{key}={run}: does not exist\n    fix: name a run folder, or a checkpoint in it")
    teacher = load_run(place, build, trust=trust)
    for modality in teacher.lit.model.encoders:
        if modality not in data.inputs:
            raise ConfigError(
                f"{key}={run}: reads {modality}, but the tasks of this run read {', '.join(data.inputs)}\n"
                f"    fix: name a teacher with these modalities, or add a task that reads {modality}"
            )
        differing = differing_input(teacher.cfg.data.inputs, inputs, modality)
        if differing is not None:
            name, theirs, mine = differing
            raise ConfigError(
                f"{key}={run}: trained with {name}={theirs}, but here it is {mine}\n"
                "    fix: set it as in the teacher's run"
            )
        if _words(teacher.data, modality) != _words(data, modality):
            raise ConfigError(
                f"{key}={run}: trained with another tokenizer of {modality}, learned from other rows\n"
                "    fix: train both on the same rows, or use a pretrained tokenizer for both"
            )
    return teacher.lit.model.requires_grad_(False)


def differing_input(theirs: DictConfig, mine: DictConfig, modality: str) -> tuple[str, Any, Any] | None:
    """The first key for which the preprocessing of a modality differs, with both values; None if there is none.

    Args:
        theirs: inputs of another run, by modality.
        mine: inputs of this run, by modality.
        modality: a modality of both.
    """
    one, other = (_plain(inputs, modality) for inputs in (theirs, mine))
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return (f"data.inputs.{modality}.{names[0]}", one.get(names[0]), other.get(names[0])) if names else None


def _plain(inputs: DictConfig, modality: str) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(inputs[modality], resolve=True)
    node = (GEOMETRY if "size" in node else {}) | node
    return {name: value for name, value in node.items() if name not in FREE_INPUT_KEYS}


def _words(data: DataModule, modality: str) -> list[str]:
    kind = data.inputs[modality]
    return kind.words() if isinstance(kind, HasVocabulary) else []
