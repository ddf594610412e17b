"""Models of the transformers library: from a folder or the hub, or from a configuration with random weights.

Errors of the library become messages that state what was tried. Attention uses the fastest implementation that the
model supports (the library's default).
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mmtrain.errors import reason_of

# _FAULTS: how the library reports a wrong name, an unreachable hub, a damaged file and sizes that do not fit
_NO_TEXT = ("vision", "audio", "vq")  # name prefixes of the configurations of non-text towers
_LISTED = 40  # a message lists up to this many types; beyond that, only the nearest
_USUAL = ("llama", "qwen3", "gpt2")
_FAULTS = (OSError, ValueError, KeyError, RuntimeError)
Read = TypeVar("Read")


def transformers_config(
    pretrained: str | None, config: Mapping[str, Any] | None, *, model_types: Sequence[str]
) -> PretrainedConfig:
    """Return the configuration of a checkpoint, or one with the given sizes.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: model_type and sizes, for random weights; None if `pretrained` is set.
        model_types: model types that the encoder supports.

    Raises:
        ValueError: if both or neither are set, if the checkpoint cannot be read or contains its own code, if the model
            type is unsupported, or if `config` contains anything but sizes.
    """
    if (pretrained is None) == (config is None):
        both = "are both set; set one of them to null" if config is not None else "are both null; set one of them"
        raise ValueError(f"pretrained (a folder or a name on the hub) and config (model_type and sizes) {both}")
    loaded: PretrainedConfig | None = None
    if config is not None:
        _check_sizes(config, "config")
        kind, origin = str(config.get("model_type")), "config.model_type"
    else:
        assert pretrained is not None
        if pretrained.startswith(("/", "./", "../")) and not Path(pretrained).exists():
            raise ValueError(_cannot_be_loaded(pretrained, "there is no such folder"))
        with of_checkpoint(pretrained):
            loaded = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
        kind, origin = loaded.model_type, f"the model type of pretrained = {pretrained}"
    if kind not in model_types:
        raise ValueError(_foreign(f"{origin} is {kind}", kind, loaded, model_types))
    if loaded is not None:
        return loaded
    assert config is not None
    return AutoConfig.for_model(**config)


def other_parts(config: PretrainedConfig) -> dict[str, str]:
    """Return the model types of the non-text parts of a complete model, such as {"vision_config": "clip"}.

    Fuyu has no such part: it embeds patches of images by one matrix.
    """
    names = [name for name in type(config).sub_configs if name.startswith(_NO_TEXT)]
    plain = config.to_dict()
    if not names and "image_token_id" in plain:
        return {"images": config.model_type}
    return {name: str((plain.get(name) or {}).get("model_type", name)) for name in names}


def complete_model(parts: Mapping[str, str], text: str) -> str:
    """Return why a complete model is not supported here, and the fix.

    Args:
        parts: result of `other_parts`.
        text: model type of its language model.
    """
    named = ", ".join(f"{name} ({kind})" for name, kind in parts.items())
    return (
        f"a complete model with {named}. Fine-tuning a complete model of several modalities is not supported yet\n"
        f"    save only the part that you need, with save_pretrained, and set its folder: the language model ({text})"
        " as lm.name, the tower as encoder.MODALITY.pretrained"
    )


def _foreign(what: str, kind: str, config: PretrainedConfig | None, model_types: Sequence[str]) -> str:
    """Return the message for an unsupported model type."""
    parts = {} if config is None else other_parts(config)
    taken = f"this encoder accepts {', '.join(model_types)}"
    if len(model_types) > _LISTED:
        near = difflib.get_close_matches(kind, model_types, n=3) or [t for t in _USUAL if t in model_types]
        taken = f"it is none of the {len(model_types)} types that are supported; the nearest are {', '.join(near)}"
    if not parts or config is None:
        return f"{what}; {taken}"
    return f"{what}; {taken}. It is {complete_model(parts, config.get_text_config().model_type)}"


def transformers_model(
    pretrained: str | None, config: PretrainedConfig, *, unused: tuple[str, ...] = (), kind: Any = AutoModel
) -> PreTrainedModel:
    """Build the model of a configuration in float32, with the checkpoint's weights if one is given.

    Args:
        pretrained: as in `transformers_config`.
        config: result of `transformers_config`, possibly changed.
        unused: name prefixes of weights that the encoder drops; a checkpoint may omit them.
        kind: class of the model, or an auto class that chooses by the configuration.

    Raises:
        ValueError: if the checkpoint cannot be read, or a weight is missing.
    """
    if pretrained is None:
        if issubclass(kind, PreTrainedModel):
            return kind(config)
        made: PreTrainedModel = kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
        return made.train()
    with of_checkpoint(pretrained):
        model, info = kind.from_pretrained(
            pretrained, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(unused))
    if missing:
        raise ValueError(
            f"pretrained = {pretrained}: {len(missing)} weights are missing, such as {', '.join(missing[:3])};"
            " set it to a checkpoint of the complete model"
        )
    loaded: PreTrainedModel = model
    return loaded.train()  # the library loads a model for evaluation: without dropout


def transformers_settings(pretrained: str, read: Callable[[str], tuple[Read, Any]]) -> Read:
    """Return the preprocessing settings of a checkpoint, or its processor, through the library's own reader.

    Raises:
        ValueError: if the file cannot be read.
    """
    with of_checkpoint(pretrained):
        return read(pretrained)[0]


def export_transformers(model: PreTrainedModel, call: str, folder: Path) -> str:
    """Write weights and configuration in the library's format.

    Args:
        model: without modules that do not affect its last hidden states.
        call: arguments of the model call in the returned code.
        folder: an existing folder.

    Returns:
        Code that loads and calls the model.
    """
    model.save_pretrained(folder)
    kind = type(model)
    where = "transformers" if hasattr(transformers, kind.__name__) else kind.__module__
    return f'{where}.{kind.__name__}.from_pretrained("{folder}")({call}).last_hidden_state'


def _check_sizes(config: Mapping[str, Any], key: str) -> None:
    """Reject keys that make transformers load code: `auto_map`, attention kernels from the hub, another repository.

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
            raise ValueError(f"{key}.{name} = {value} is not a size; remove it, or set pretrained to a checkpoint")


_LOADING = ("auto_map", "quantization_config", "trust_remote_code", "use_kernels", "backbone_kwargs")


@contextmanager
def of_checkpoint(pretrained: str | None) -> Iterator[None]:
    """Turn errors of the library into a ValueError that names the checkpoint."""
    try:
        yield
    except _FAULTS as error:
        raise ValueError(_cannot_be_loaded(pretrained, reason_of(error))) from error


def _cannot_be_loaded(pretrained: str | None, reason: str) -> str:
    return (
        f"pretrained = {pretrained} cannot be loaded: {reason}\n"
        "    set pretrained to a folder with config.json, preprocessor_config.json and model.safetensors,"
        " or to a name of the hub"
    )
