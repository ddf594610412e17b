"""ResNet (1512.03385) from torchvision, without its classifier: the last feature map becomes the tokens.

Unusual here: for small pictures the stem can keep the resolution (`small_input`: a 3x3 convolution of stride 1 and no
max pooling, as the paper does for CIFAR-10), because 64 pixels would shrink to 2x2 tokens.
"""

import torch
import torchvision
from torch import Tensor, nn

from mmtrain.types import Features


class ResNet(nn.Module):
    """A torchvision ResNet whose last feature map is read as tokens.

    Args:
        name: a torchvision builder: resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet50_2, ...
        small_input: 3x3 stem of stride 1 without max pooling.

    Raises:
        ValueError: for a name that torchvision does not have.
    """

    def __init__(self, *, name: str, small_input: bool) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models, include=["resne*", "wide_resne*"])
        if name not in known:
            raise ValueError(f"torchvision has no ResNet named {name!r}; it has {', '.join(known)}")
        net = torchvision.models.get_model(name, weights=None)
        self.dim: int = net.fc.in_features
        if small_input:
            net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        net.fc = nn.Identity()
        self.net = net

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode pictures.

        Args:
            values: (B, 3, H, W), floating point, normalised.
            mask: unused; a picture has no padding.

        Returns:
            tokens (B, H' * W', dim), row by row; every token is valid.
        """
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(values))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        x = x.flatten(2).transpose(1, 2)  # (B, dim, H', W') -> (B, T, dim)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
