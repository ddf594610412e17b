"""Models of the timm library by name; its errors become messages that state what was tried."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, save_for_hf
from torch import nn

from mmtrain.layers.image_processor import timm_settings


def timm_config(name: str) -> PretrainedCfg:
    """Return timm's configuration of a model's default weights, or of the weights given by the tag in the name.

    Raises:
        ValueError: for a name or a tag that timm does not have.
    """
    bare = name.partition(".")[0]
    if timm.is_model(bare):
        try:
            config = timm.get_pretrained_cfg(name)
        except RuntimeError:  # an unknown tag
            config = None
        if config is not None:
            return config
    names = timm.list_pretrained(f"{bare}.*") or timm.list_models()
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    raise ValueError(f"timm has no model named {name}; the nearest are {', '.join(near)}; see timm.list_models()")


def timm_model(name: str, *, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Build a model with random weights or with timm's weights, which are downloaded once.

    Args:
        name: as in `timm.list_models()`, with or without a tag.
        pretrained: whether to load timm's weights.
        options: arguments of the model's constructor.

    Raises:
        ValueError: if the model does not accept the options, or its weights cannot be loaded.
    """
    config = timm_config(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        message = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        if not pretrained:
            raise ValueError(f"timm's {name} cannot be built with {message}: {reason}") from error
        raise ValueError(
            f"timm's weights of {name} ({config.hf_hub_id or config.url or 'none are published'}) cannot be loaded:"
            f" {reason}\n    set pretrained to the path of a file of its weights, or to null"
        ) from error


def timm_preprocessing(name: str) -> dict[str, Any]:
    """Return the preprocessing of the default weights, or of the weights given by the tag in the name."""
    return timm_settings(timm_config(name).to_dict(), name)


def export_timm(net: nn.Module, name: str, options: Mapping[str, Any], folder: Path) -> str:
    """Write weights and configuration in timm's format for a folder or the hub.

    Args:
        net: a model of that name, or one with its names and shapes. Missing weights get timm's initial values; they
            must not affect the features.
        name: as in `timm.list_models()`.
        options: arguments of the model's constructor.
        folder: an existing folder.

    Returns:
        Code that loads the model.
    """
    model = timm_model(name, pretrained=False, options=options)
    fit = model.load_state_dict(net.state_dict(), strict=False)
    assert not fit.unexpected_keys, fit.unexpected_keys
    save_for_hf(model, str(folder), model_args=dict(options), safe_serialization=True)
    return f'timm.create_model("local-dir:{folder}", pretrained=True).eval().forward_features(values)'
