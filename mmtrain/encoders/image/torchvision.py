"""Torchvision's classifiers by name, without their classifier: the last feature map becomes the tokens.

Convolutional networks (ConvNeXt, EfficientNet, MobileNet, DenseNet, RegNet, VGG, ...), Swin and ViT; for ResNets there
is resnet.py. Names of weights stay torchvision's. Of a ViT the tokens are what its encoder gives, the class token
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
    """A classifier of torchvision up to its last feature map.

    Args:
        name: a builder of `torchvision.models`: convnext_tiny, efficientnet_b0, swin_t, vit_b_16, ...
        pretrained: True for torchvision's default weights, the path of a state dict by torchvision's names, or None.
        image_size: height and width of the picture in pixels; only a ViT is built for a size.

    Raises:
        ValueError: for a name that is not of these families, a picture that a ViT cannot cut, and weights that cannot
            be had or do not fit.
    """

    def __init__(self, *, name: str, pretrained: bool | str | None, image_size: int) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models, include=FAMILIES)
        if name not in known:
            raise ValueError(
                f"name = {name}; encoder/image=torchvision takes {', '.join(known)}\n"
                "    for a ResNet there is encoder/image=resnet, for all others encoder/image=timm"
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
        """How the weights want their pictures; {} without weights."""
        known = torchvision.models.list_models(module=torchvision.models, include=FAMILIES)
        return torchvision_preprocessing(name, pretrained) if name in known else {}

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The stem (of a ViT with class token and positions), then blocks in their order; a norm goes with its block.

        The blocks of DenseNet are its dense blocks and transitions.
        """
        net = self.net
        if isinstance(net, VisionTransformer):
            stem = (net.conv_proj, net.class_token, net.encoder.pos_embedding)
            return [stem, *((block,) for block in net.encoder.layers)]
        parts = [net.stem, *net.trunk_output.children()] if isinstance(net, RegNet) else list(net.features.children())
        if isinstance(net, DenseNet):
            parts.pop()  # its last norm
        blocks = [block for part in parts for block in _blocks(part) if next(block.parameters(), None) is not None]
        found: list[tuple[nn.Module | nn.Parameter, ...]] = []
        for block in blocks:
            if found and isinstance(block, nn.BatchNorm2d | nn.LayerNorm):
                found[-1] = (*found[-1], block)
            else:
                found.append((block,))
        return found

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode pictures.

        Args:
            values: (B, 3, H, W), floating point, normalised; of a ViT, H and W are image_size.
            mask: unused; a picture has no padding.

        Returns:
            tokens (B, H' * W', dim), row by row, of a ViT with the class token in front; every token is valid.
        """
        x = _feature_map(self.net, values)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


def _trunk(name: str, image_size: int) -> Any:
    """The builder's module without pooling and classifier."""
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
    """Of the tokens of a picture; in evaluation mode, so that no batch norm takes statistics of it."""
    with torch.no_grad():
        try:
            return _feature_map(net.eval(), torch.zeros(1, 3, image_size, image_size)).shape[-1]
        except RuntimeError as error:
            raise ValueError(
                f"{name} cannot read pictures of image_size = {image_size}: {error}\n"
                "    set data.inputs.image.size to something larger"
            ) from error
        finally:
            net.train()


def _feature_map(net: Any, values: Tensor) -> Tensor:
    """What the classifier would pool or read, (B, T, dim)."""
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
    """Those of a stage, which is a plain sequence; anything else is a block itself."""
    return list(part.children()) if type(part) in (nn.Sequential, AnyStage) else [part]
