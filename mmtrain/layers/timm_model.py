"""Models of the timm library by name; its errors become messages that say what was tried."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, save_for_hf
from torch import nn

from mmtrain.layers.image_processor import timm_settings


def timm_config(name: str) -> PretrainedCfg:
    """What timm says of a model's default weights, or of those that the tag in the name means.

    Raises:
        ValueError: for a name or a tag that timm does not have.
    """
    bare = name.partition(".")[0]
    if timm.is_model(bare):
        try:
            config = timm.get_pretrained_cfg(name)
        except RuntimeError:  # a tag that there is not
            config = None
        if config is not None:
            return config
    names = timm.list_pretrained(f"{bare}.*") or timm.list_models()
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    raise ValueError(f"timm has no model named {name}; the nearest are {', '.join(near)}; see timm.list_models()")


def timm_model(name: str, *, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """A model, from scratch or with timm's weights, which it downloads once.

    Args:
        name: as in `timm.list_models()`, with or without a tag.
        pretrained: whether it starts with timm's weights.
        options: what the model's constructor is told.

    Raises:
        ValueError: when the model does not take the options, or its weights cannot be had.
    """
    config = timm_config(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        told = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        if not pretrained:
            raise ValueError(f"timm's {name} cannot be built with {told}: {reason}") from error
        raise ValueError(
            f"timm's weights of {name} ({config.hf_hub_id or config.url or 'none are published'}) cannot be had:"
            f" {reason}\n    set pretrained to the path of a file of its weights, or to null"
        ) from error


def timm_preprocessing(name: str) -> dict[str, Any]:
    """How the default weights, or those of the tag in the name, want their pictures."""
    return timm_settings(timm_config(name).to_dict(), name)


def export_timm(net: nn.Module, name: str, options: Mapping[str, Any], folder: Path) -> str:
    """Write weights and configuration as timm has them in a folder or on the hub.

    Args:
        net: a model of that name, or one with its names and shapes; what it lacks is filled up with what timm starts
            with, and has to be without part in the features.
        name: as in `timm.list_models()`.
        options: what the model's constructor is told.
        folder: is there.

    Returns:
        The code that loads it.
    """
    whole = timm_model(name, pretrained=False, options=options)
    fit = whole.load_state_dict(net.state_dict(), strict=False)
    assert not fit.unexpected_keys, fit.unexpected_keys
    save_for_hf(whole, str(folder), model_args=dict(options), safe_serialization=True)
    return f'timm.create_model("local-dir:{folder}", pretrained=True).eval().forward_features(values)'
