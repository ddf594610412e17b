"""A model that another run has trained, as a part of this one: a teacher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from mmtrain.config.instantiate import check_trust
from mmtrain.config.run_config import NAME, load_run_config
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import Worded
from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.load import best_checkpoint, check_same_model, check_same_names, load_checkpoint
from mmtrain.training.lit_module import LitModel

# how runs prepared pictures and films before their configuration had these keys
GEOMETRY = {"resize_size": None, "interpolation": "bilinear", "crop_offset": "round"}
# what changes inputs in training alone, or bounds what is read
FREE = ("crop_scale", "flip", "rotate", "color_jitter", "word_dropout", "noise", "time_mask", "freq_mask", "max_pixels")


Build = Callable[[DictConfig, Path], tuple[LitModel, DataModule]]  # `mmtrain.build.build_again`


class Trained(NamedTuple):
    """What lies in a run folder, or beside a checkpoint in one.

    Attributes:
        lit: with the weights, in evaluation mode.
        data: as it was read, with its vocabularies.
        cfg: of the run.
        path: of the checkpoint.
        step: of the checkpoint.
    """

    lit: LitModel
    data: DataModule
    cfg: DictConfig
    path: Path
    step: int


def load_trained(run: str | Path, build: Build, *, trust: Sequence[str] = ()) -> Trained:
    """Build the model of a run and load its weights.

    No code runs but that of components; see `mmtrain.config.instantiate`.

    Args:
        run: a run folder, of which the best checkpoint is taken, or a checkpoint.
        build: makes the model of a configuration with the vocabularies of a run folder.
        trust: packages of your own whose classes the run may name, such as `["mine"]`.

    Raises:
        ConfigError: when there is none, it is of another model than its configuration says, or it names something else
            than a component.
    """
    run = Path(run).expanduser()
    path = run if run.is_file() else best_checkpoint(run)
    folder = path.parent.parent
    cfg = load_run_config(folder, trust=check_trust(trust))
    checkpoint = load_checkpoint(path)
    try:
        lit, data = build(cfg, folder)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{folder / NAME}: {said}\n    fix: restore the file that mmtrain wrote") from error
    check_same_names(checkpoint, data.names(), path)
    check_same_model(checkpoint, lit, path)
    lit.load_state_dict(checkpoint["state_dict"])
    return Trained(lit.eval(), data, cfg, path, checkpoint["global_step"])


def load_teacher(
    run: str, data: DataModule, inputs: DictConfig, key: str, build: Build, *, trust: Sequence[str]
) -> nn.Module:
    """The model of a run that takes the inputs of this one.

    Args:
        run: a run folder or a checkpoint.
        data: of this run, which has been read.
        inputs: how this run prepares what it reads, by modality.
        key: of the configuration, for messages.
        build: see `load_trained`.
        trust: see `load_trained`.

    Raises:
        ConfigError: when it takes other inputs.
    """
    place = Path(run).expanduser()
    if not place.exists():
        raise ConfigError(f"{key} = {run} does not exist\n    name a run folder, or a checkpoint in one")
    teacher = load_trained(place, build, trust=trust)
    for modality in teacher.lit.model.encoders:
        if modality not in data.inputs:
            raise ConfigError(
                f"{key} = {run} reads {modality}, but the tasks of this run read {', '.join(data.inputs)}\n"
                f"    name a teacher that reads no more, or add a task that reads {modality}"
            )
        differing = differing_input(teacher.cfg.data.inputs, inputs, modality)
        if differing is not None:
            name, theirs, mine = differing
            raise ConfigError(
                f"{key} = {run} was trained with {name} = {theirs}, but here it is {mine}\n"
                "    set it as the teacher's run has it"
            )
        if _words(teacher.data, modality) != _words(data, modality):
            raise ConfigError(
                f"{key} = {run} was trained with another tokenizer of {modality}, made of other rows\n"
                "    train both on the same rows, or give both the tokenizer of the same weights"
            )
    return teacher.lit.model.requires_grad_(False)


def differing_input(theirs: DictConfig, mine: DictConfig, modality: str) -> tuple[str, Any, Any] | None:
    """The first key by which two configurations prepare a modality otherwise, with both values; None if there is none.

    Args:
        theirs: by modality, as another run prepares what it reads.
        mine: likewise.
        modality: that both have.
    """
    one, other = (_plain(inputs, modality) for inputs in (theirs, mine))
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return (f"data.inputs.{modality}.{names[0]}", one.get(names[0]), other.get(names[0])) if names else None


def _plain(inputs: DictConfig, modality: str) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(inputs[modality], resolve=True)
    node = (GEOMETRY if "size" in node else {}) | node
    return {name: value for name, value in node.items() if name not in FREE}


def _words(data: DataModule, modality: str) -> list[str]:
    kind = data.inputs[modality]
    return kind.words() if isinstance(kind, Worded) else []
