"""Models of the transformers library: from a folder or a name of the hub, or from a configuration with random weights.

Its errors become messages that say what was tried; attention is the fastest that the model supports (the library's own
choice).
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mmtrain.errors import reason_of

# what a wrong name, a hub out of reach, a damaged file and sizes that do not fit come as
_NO_TEXT = ("vision", "audio", "vq")  # beginnings of the names of configurations of towers
_LISTED = 40  # types that a message lists; of more it has the nearest
_USUAL = ("llama", "qwen3", "gpt2")
_FAULTS = (OSError, ValueError, KeyError, RuntimeError)


def transformers_config(
    pretrained: str | None, config: Mapping[str, Any] | None, *, model_types: Sequence[str]
) -> PretrainedConfig:
    """The configuration of a checkpoint, or one of these sizes.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: model_type and sizes, for random weights; None beside `pretrained`.
        model_types: those that the encoder knows.

    Raises:
        ValueError: for both or neither, a checkpoint that cannot be read or brings code of its own, a model of another
            type, and sizes that are none.
    """
    if (pretrained is None) == (config is None):
        both = "are both set; set one of them to null" if config is not None else "are both null; set one of them"
        raise ValueError(f"pretrained (a folder or a name of the hub) and config (model_type and sizes) {both}")
    loaded: PretrainedConfig | None = None
    if config is not None:
        _check_sizes(config, "config")
        kind, origin = str(config.get("model_type")), "config.model_type"
    else:
        assert pretrained is not None
        with _said_of(pretrained):
            loaded = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
        kind, origin = loaded.model_type, f"the model type of pretrained = {pretrained}"
    if kind not in model_types:
        raise ValueError(_foreign(f"{origin} is {kind}", kind, loaded, model_types))
    if loaded is not None:
        return loaded
    assert config is not None
    return AutoConfig.for_model(**config)


def other_parts(config: PretrainedConfig) -> dict[str, str]:
    """The model types of the parts of a complete model that read no text, such as {"vision_config": "clip"}."""
    names = [name for name in type(config).sub_configs if name.startswith(_NO_TEXT)]
    plain = config.to_dict()
    return {name: str((plain.get(name) or {}).get("model_type", name)) for name in names}


def complete_model(parts: Mapping[str, str], text: str) -> str:
    """Why a complete model is not read here, and what to do.

    Args:
        parts: from `other_parts`.
        text: the model type of its language model.
    """
    named = ", ".join(f"{name} ({kind})" for name, kind in parts.items())
    return (
        f"a complete model with {named}. Fine-tuning a complete model of several modalities is not supported yet\n"
        f"    save the part that is meant alone, with save_pretrained, and name its folder: the language model ({text})"
        " as lm.name, the tower as encoder.MODALITY.pretrained"
    )


def _foreign(what: str, kind: str, config: PretrainedConfig | None, model_types: Sequence[str]) -> str:
    """The message for a type of model that is none of those that are known."""
    parts = {} if config is None else other_parts(config)
    taken = f"this encoder takes {', '.join(model_types)}"
    if len(model_types) > _LISTED:
        near = difflib.get_close_matches(kind, model_types, n=3) or [t for t in _USUAL if t in model_types]
        taken = f"it is none of the {len(model_types)} types that are known; the nearest are {', '.join(near)}"
    if not parts or config is None:
        return f"{what}; {taken}"
    return f"{what}; {taken}. It is {complete_model(parts, config.get_text_config().model_type)}"


def transformers_model(
    pretrained: str | None, config: PretrainedConfig, *, unused: tuple[str, ...] = (), kind: Any = AutoModel
) -> PreTrainedModel:
    """The model of a configuration, in 32 bits, with the checkpoint's weights if one is named.

    Args:
        pretrained: as that of `transformers_config`.
        config: what that gave, perhaps changed.
        unused: beginnings of names of weights that the encoder drops, and a checkpoint may lack.
        kind: the class of the model, or the library's choice by the configuration.

    Raises:
        ValueError: for a checkpoint that cannot be read or lacks a weight.
    """
    if pretrained is None:
        if issubclass(kind, PreTrainedModel):
            return kind(config)
        return kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    with _said_of(pretrained):
        model, info = kind.from_pretrained(
            pretrained, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(unused))
    if missing:
        raise ValueError(
            f"pretrained = {pretrained} lacks {len(missing)} weights, such as {', '.join(missing[:3])};"
            " name a checkpoint of the whole model"
        )
    return model


def transformers_settings(pretrained: str, read: Callable[[str], tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """What a checkpoint says of its input, by the library's reader of such files.

    Raises:
        ValueError: when the file cannot be read.
    """
    with _said_of(pretrained):
        return read(pretrained)[0]


def export_transformers(model: PreTrainedModel, call: str, folder: Path) -> str:
    """Write weights and configuration as the library does.

    Args:
        model: without what has no part in its last hidden states.
        call: what stands in the brackets when it is called.
        folder: is there.

    Returns:
        The code that loads it.
    """
    model.save_pretrained(folder)
    kind = type(model)
    where = "transformers" if hasattr(transformers, kind.__name__) else kind.__module__
    return f'{where}.{kind.__name__}.from_pretrained("{folder}")({call}).last_hidden_state'


def _check_sizes(config: Mapping[str, Any], key: str) -> None:
    """Refuse what would make transformers load code: `auto_map`, a kernel of the hub as attention, another repository.

    Raises:
        ValueError: with the key.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            _check_sizes(value, f"{key}.{name}")
        kernel = str(name).endswith("_implementation") and value not in ("eager", "sdpa")
        if (
            kernel
            or str(name).startswith("_")
            or name in _LOADING
            or (isinstance(value, str) and re.search(r"[/\\:]", value))
        ):
            raise ValueError(f"{key}.{name} = {value} is no size; take it out, or name a checkpoint with pretrained")


_LOADING = ("auto_map", "quantization_config", "trust_remote_code", "use_kernels", "backbone_kwargs")


@contextmanager
def _said_of(pretrained: str | None) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        reason = reason_of(error)
        raise ValueError(
            f"pretrained = {pretrained} cannot be loaded: {reason}\n"
            "    set pretrained to a folder with config.json, preprocessor_config.json and model.safetensors,"
            " or to a name of the hub"
        ) from error
