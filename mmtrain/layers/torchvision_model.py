"""Weights of torchvision's classifiers, and their preprocessing."""

import pickle
import re
from typing import Any

import torchvision
from torch import Tensor

from mmtrain.layers.pretrained import read_weights


def torchvision_weights(name: str, pretrained: bool | str) -> dict[str, Tensor]:
    """Return the weights of a classifier by torchvision's names, including its head.

    Args:
        name: name of a builder in `torchvision.models`.
        pretrained: True for torchvision's default weights, downloaded once; else the path of a state dict.

    Raises:
        ValueError: if the weights cannot be downloaded or read.
    """
    if isinstance(pretrained, str):
        weights = read_weights(pretrained)
    else:
        published = torchvision.models.get_model_weights(name).DEFAULT
        try:
            weights = dict(published.get_state_dict(progress=False, check_hash=True, weights_only=True))
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"pretrained = true: torchvision's weights of {name} cannot be loaded from {published.url}: {error}\n"
                "    download that file where there is a network and set pretrained to its path, or set it to null"
            ) from error
    # the published DenseNet weights use older layer names
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", n): w for n, w in weights.items()}


def torchvision_preprocessing(name: str, pretrained: bool | str | None) -> dict[str, Any]:
    """Return the image or video preprocessing of the default weights; {} without weights."""
    if not pretrained:
        return {}
    wanted = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    resized = list(wanted.resize_size)
    return {
        "mean": list(wanted.mean),
        "std": list(wanted.std),
        "size": wanted.crop_size[0],
        "resize_size": resized if len(resized) == 2 else resized[0],
        "interpolation": wanted.interpolation.value,
        "crop_offset": "round",
    }
