"""Torchvision's classification models by name, without their head: the last feature map gives the tokens.

Supported are convolutional networks (ConvNeXt, EfficientNet, MobileNet, DenseNet, RegNet, VGG, ...), Swin and ViT; for
ResNets see resnet.py. Weights keep torchvision's names. The tokens of a ViT are the output of its encoder, class token
first.
"""

import math
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, RegNet, SwinTransformer, VisionTransformer
from torchvision.models.regnet import AnyStage

from mmtrain.annotations import Size
from mmtrain.layers.map_tokens import map_tokens
from mmtrain.layers.pretrained import load_weights, resized_grid
from mmtrain.layers.torchvision_model import torchvision_preprocessing, torchvision_weights
from mmtrain.types import Features

FAMILIES = (
    *("alexnet", "convnext_*", "densenet*", "efficientnet_*", "mobilenet_*"),
    *("regnet_*", "squeezenet*", "swin_*", "vgg*", "vit_*"),
)
HEADS = ("avgpool", "classifier", "fc", "head", "heads")
POSITIONS = "encoder.pos_embedding"


class TorchVision(nn.Module):
    """A torchvision classification model up to its last feature map.

    Args:
        name: a builder of `torchvision.models`: convnext_tiny, efficientnet_b0, swin_t, vit_b_16, ...
        pretrained: True for torchvision's default weights, the path of a state dict by torchvision's names, or None.
        image_size: height and width of the image in pixels; only a ViT is built for a size.

    Raises:
        ValueError: for an unsupported name, an image size that a ViT's patch does not divide, or weights that cannot be
            loaded or do not fit.
    """

    def __init__(self, *, name: str, pretrained: bool | str | None, image_size: Size) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models, include=FAMILIES)
        if name not in known:
            raise ValueError(
                f"name = {name}; encoder/image=torchvision accepts {', '.join(known)}\n"
                "    for a ResNet use encoder/image=resnet, for all others encoder/image=timm"
            )
        self.net = _trunk(name, image_size)
        self.dim: int = _width(self.net, name, image_size)
        if pretrained:
            weights = torchvision_weights(name, pretrained)
            if POSITIONS in weights:
                side = math.isqrt(self.net.get_parameter(POSITIONS).shape[1] - 1)
                weights[POSITIONS] = resized_grid(weights[POSITIONS], (side, side), num_prefix=1)
            load_weights(self.net, weights, name=str(pretrained), ignore=tuple(f"{head}." for head in HEADS))

    @classmethod
    def preprocessing(cls, *, name: str, pretrained: bool | str | None) -> dict[str, Any]:
        """Return the image preprocessing of the weights; {} without weights."""
        known = torchvision.models.list_models(module=torchvision.models, include=FAMILIES)
        return torchvision_preprocessing(name, pretrained) if name in known else {}

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the stem (for a ViT with class token and positions), then the blocks. A norm belongs to its block.

        The blocks of DenseNet are its dense blocks and transitions.
        """
        net = self.net
        if isinstance(net, VisionTransformer):
            stem = (net.conv_proj, net.class_token, net.encoder.pos_embedding)
            return [stem, *((block,) for block in net.encoder.layers)]
        parts = [net.stem, *net.trunk_output.children()] if isinstance(net, RegNet) else list(net.features.children())
        if isinstance(net, DenseNet):
            parts.pop()  # its final norm
        blocks = [block for part in parts for block in _blocks(part) if next(block.parameters(), None) is not None]
        results: list[tuple[nn.Module | nn.Parameter, ...]] = []
        for block in blocks:
            if results and isinstance(block, nn.BatchNorm2d | nn.LayerNorm):
                results[-1] = (*results[-1], block)
            else:
                results.append((block,))
        return results

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized; for a ViT, H and W are image_size.
            mask: unused; an image has no padding.

        Returns:
            tokens (B, H' * W', dim), row by row, for a ViT with the class token first; all are valid.
        """
        x = _feature_map(self.net, values)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


def _trunk(name: str, image_size: int) -> Any:
    """Build the module without pooling and classifier."""
    sizes = {}
    if name.startswith("vit_"):
        patch = int(name.rpartition("_")[2])
        if image_size % patch:
            raise ValueError(
                f"image_size = {image_size} is not divisible by {patch}, the patch of {name};"
                f" set data.inputs.image.size to {max(round(image_size / patch), 1) * patch}"
            )
        sizes["image_size"] = image_size
    net = torchvision.models.get_model(name, weights=None, **sizes)
    for head in HEADS:
        if head in dict(net.named_children()):
            delattr(net, head)
    return net


def _width(net: nn.Module, name: str, image_size: int) -> int:
    """Return the token width, from a forward pass in evaluation mode, so that batch norm statistics do not change."""
    with torch.no_grad():
        try:
            return _feature_map(net.eval(), torch.zeros(1, 3, image_size, image_size)).shape[-1]
        except RuntimeError as error:
            raise ValueError(
                f"{name} does not accept image_size = {image_size}: {error}\n"
                "    set data.inputs.image.size to something larger"
            ) from error
        finally:
            net.train()


def _feature_map(net: Any, values: Tensor) -> Tensor:
    """Return the input of the classifier's pooling, (B, T, dim)."""
    if isinstance(net, VisionTransformer):
        x = net.conv_proj(values).flatten(2).transpose(1, 2)
        return net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), x], dim=1))
    if isinstance(net, SwinTransformer):
        return net.norm(net.features(values)).flatten(1, 2)  # channels last
    if isinstance(net, RegNet):
        x = net.trunk_output(net.stem(values))
    elif isinstance(net, DenseNet):
        x = F.relu(net.features(values))
    else:
        x = net.features(values)
    return map_tokens(x)


def _blocks(part: nn.Module) -> list[nn.Module]:
    """Return the blocks of a stage, which is a plain sequence. Anything else is a single block."""
    return list(part.children()) if type(part) in (nn.Sequential, AnyStage) else [part]
