"""ResNet (1512.03385) from torchvision, without its classifier: the positions of the last feature map are the tokens.

For small images, the stem can keep the resolution (`small_input`: a 3x3 convolution of stride 1 and no max pooling, as
in the paper's CIFAR-10 models). Otherwise an image of 64 pixels would shrink to 2x2 tokens.
"""

from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

from mmtrain.layers.map_tokens import map_tokens
from mmtrain.layers.pretrained import load_weights
from mmtrain.layers.torchvision_model import torchvision_preprocessing, torchvision_weights
from mmtrain.types import Features

Name = Literal[  # torchvision's builders
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]


class ResNet(nn.Module):
    """A torchvision ResNet; the positions of its last feature map are the tokens.

    Args:
        name: a torchvision builder: resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet50_2, ...
        small_input: use a 3x3 stem of stride 1 without max pooling.
        pretrained: True for torchvision's default weights, the path of a state dict by torchvision's names, or None.

    Raises:
        ValueError: for an unknown name, or if the weights cannot be loaded or do not fit.
    """

    def __init__(self, *, name: Name, small_input: bool, pretrained: bool | str | None) -> None:
        super().__init__()
        known = known_resnets()
        if name not in known:
            raise ValueError(f"torchvision has no ResNet named {name!r}; it has {', '.join(known)}")
        if small_input and pretrained is True:
            raise ValueError(
                "small_input = true, but the stem of torchvision's weights is 7x7; set small_input to false,"
                " or pretrained to null"
            )
        net = torchvision.models.get_model(name, weights=None)
        self.dim: int = net.fc.in_features
        if small_input:
            net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        net.fc = nn.Identity()
        self.net = net
        if pretrained:
            load_weights(net, torchvision_weights(name, pretrained), name=str(pretrained), ignore=("fc.",))

    @classmethod
    def preprocessing(cls, *, name: str, pretrained: bool | str | None) -> dict[str, Any]:
        """Return the image preprocessing of the weights; {} without weights."""
        return torchvision_preprocessing(name, pretrained) if name in known_resnets() else {}

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the stem, then the residual blocks."""
        net = self.net
        blocks = [block for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for block in stage]
        return [(net.conv1, net.bn1), *((block,) for block in blocks)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized.
            mask: unused; an image has no padding.

        Returns:
            tokens (B, H' * W', dim), row by row; all are valid.
        """
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(values))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        x = map_tokens(x)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


def known_resnets() -> list[str]:
    """Return the names of torchvision's builders, including resnext."""
    return torchvision.models.list_models(module=torchvision.models, include=["resne*", "wide_resne*"])
