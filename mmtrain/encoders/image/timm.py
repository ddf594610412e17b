"""Any model of the timm library by name, without its classifier: its last features are the tokens.

Parts that timm builds but that do not affect these features are dropped, so that every parameter gets a gradient: a
pooling head, or a norm after the pooling. A weights file may use other names, if its tensors have the same order and
shapes, as in ports from other libraries.
"""

import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from mmtrain.annotations import ProperFraction, Size
from mmtrain.layers.foreign_model import drop, stem_and_blocks, unused_parameters
from mmtrain.layers.map_tokens import map_tokens
from mmtrain.layers.pretrained import load_weights, read_weights
from mmtrain.layers.timm_model import export_timm, timm_config, timm_model, timm_preprocessing
from mmtrain.types import Features

MERGED = (99999,)  # timm's marker for parameters that belong to the previous group


@runtime_checkable
class Grouped(Protocol):
    """A timm model that defines groups of parameters."""

    def group_matcher(self, coarse: bool) -> Any:
        """Return name patterns by group, or a function of names."""
        ...


class Timm(nn.Module):
    """A timm model up to the output of `forward_features`.

    Args:
        name: as in `timm.list_models()`, with or without a tag.
        pretrained: True for timm's weights, None for random weights, or a state dict file in timm's names or order.
        image_size: height and width of the image in pixels; used by models that are built for a size.
        drop_path: probability of stochastic depth; use 0 for models that do not support it.

    Raises:
        ValueError: for an unknown name, a size or rate that the model does not support, features that are neither a map
            nor a sequence, or weights that cannot be loaded or do not fit.
    """

    def __init__(
        self, *, name: str, pretrained: bool | str | None, image_size: Size, drop_path: ProperFraction
    ) -> None:
        super().__init__()
        config = timm_config(name)
        options: dict[str, Any] = {"num_classes": 0}
        if config.fixed_input_size:
            options["img_size"] = image_size
        if drop_path:
            options["drop_path_rate"] = drop_path
        with torch.device("meta"):  # a copy without memory or compute shows which parts exist
            copy, options = _unpooled(name, options)
            try:
                features = copy.forward_features(torch.empty(1, 3, image_size, image_size))
            except (RuntimeError, ValueError, AssertionError) as error:
                raise ValueError(f"{name} does not accept image_size = {image_size}: {error}") from error
        self.channels_last = _is_channels_last(features, copy.num_features, name)
        tokens = _tokens(features, self.channels_last)
        idle = unused_parameters(copy, tokens)
        self.dim: int = tokens.shape[-1]
        self.net: Any = timm_model(name, pretrained=pretrained is True, options=options)
        self.name, self.options = name, options
        drop(self.net, idle)
        if isinstance(pretrained, str):
            heads = config.classifier if isinstance(config.classifier, tuple) else (config.classifier,)
            ignore = tuple(f"{head}." for head in heads if head) + tuple(idle)
            self._load(pretrained, name, options, ignore)

    def _load(self, path: str, name: str, options: dict[str, Any], ignore: tuple[str, ...]) -> None:
        weights, mine = read_weights(path), self.net.state_dict()
        if not mine.keys() <= weights.keys():
            weights = _in_order(weights, mine)
        elif any(weights[n].shape != tensor.shape for n, tensor in mine.items()):  # timm resizes where possible
            overlay = {"pretrained_cfg_overlay": {"state_dict": weights, "custom_load": False}}
            resized = timm_model(name, pretrained=True, options=options | overlay).state_dict()
            weights |= {n: resized[n] for n in mine}
        load_weights(self.net, weights, name=path, ignore=ignore)

    @classmethod
    def preprocessing(cls, *, name: str, pretrained: bool | str | None) -> dict[str, Any]:
        """Return the image preprocessing of the weights; {} without weights."""
        return timm_preprocessing(name) if pretrained else {}

    def export(self, folder: Path) -> str:
        """Write the model in timm's format, and return code that loads it."""
        return export_timm(self.net, self.name, self.options, folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return timm's coarse parameter groups: the stem, then blocks, or stages of a convolutional network."""
        groups_of = _groups(self.net)
        if groups_of is None:
            return stem_and_blocks(self.net)
        matcher = {
            group: [one for one in spec if one[1] != MERGED] if isinstance(spec, list | tuple) else spec
            for group, spec in groups_of.items()
        }
        specs = [spec for spec in matcher.values() if spec is not None]
        patterns = [one[0] for spec in specs for one in ([(spec,)] if isinstance(spec, str) else spec)]
        # parameters that match no pattern are the last group
        groups = [names for _, names in sorted(group_parameters(self.net, matcher).items())]
        grouped = [names for names in groups if any(re.match(pattern, names[0]) for pattern in patterns)]
        parameters = dict(self.net.named_parameters())
        return [tuple(_largest(self.net, {id(parameters[n]) for n in names})) for names in grouped]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized.
            mask: unused; an image has no padding.

        Returns:
            tokens (B, T, dim): a feature map row by row, or the model's tokens (class tokens first); all are valid.
        """
        x = _tokens(self.net.forward_features(values), self.channels_last)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


def _unpooled(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model in evaluation mode, without pooling if the model allows that, and its options."""
    try:
        unpooled = options | {"global_pool": ""}
        return timm_model(name, pretrained=False, options=unpooled).eval(), unpooled
    except ValueError:
        return timm_model(name, pretrained=False, options=options).eval(), options


def _is_channels_last(features: Any, width: int, name: str) -> bool:
    if torch.is_tensor(features) and features.ndim == 3:
        return True
    if torch.is_tensor(features) and features.ndim == 4 and width in (features.shape[1], features.shape[3]):
        return features.shape[1] != width
    shape = tuple(features.shape) if torch.is_tensor(features) else type(features).__name__
    raise ValueError(
        f"name = {name}: its features are {shape}, neither a map of {width} channels nor a sequence; set another"
    )


def _groups(net: nn.Module) -> dict[str, Any] | None:
    """Return name patterns by group, coarse if available; None for the few models without groups."""
    if not isinstance(net, Grouped):
        return None
    try:
        groups = net.group_matcher(coarse=True)
    except AssertionError:  # RDNet raises this if it has no coarse groups
        groups = net.group_matcher(coarse=False)
    return groups if isinstance(groups, dict) else None


def _tokens(features: Tensor, channels_last: bool) -> Tensor:
    """Map (B, T, D), (B, H, W, D) or (B, D, H, W) to (B, T, D)."""
    return features.flatten(1, -2) if channels_last else map_tokens(features)


def _in_order(weights: dict[str, Tensor], mine: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights that have the order, shapes and kinds of mine. Additional weights at the end are a classifier."""
    theirs = list(weights.items())[: len(mine)]
    fits = len(theirs) == len(mine) and all(
        one.rpartition(".")[2] == other.rpartition(".")[2] and weight.shape == tensor.shape
        for (one, weight), (other, tensor) in zip(theirs, mine.items(), strict=True)
    )
    return {name: weight for name, (_, weight) in zip(mine, theirs, strict=True)} if fits else weights


def _largest(module: nn.Module, wanted: set[int]) -> list[nn.Module | nn.Parameter]:
    """Return the largest modules with only wanted parameters, except plain sequences, and other wanted parameters."""
    results: list[nn.Module | nn.Parameter] = [p for p in module.parameters(recurse=False) if id(p) in wanted]
    for child in module.children():
        inside = {id(p) for p in child.parameters()}
        if inside and inside <= wanted and not isinstance(child, nn.Sequential | nn.ModuleList):
            results.append(child)
        elif inside & wanted:
            results += _largest(child, wanted)
    return results
