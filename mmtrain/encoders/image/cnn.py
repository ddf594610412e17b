"""A small convolutional network to train from scratch: a stem, then stages that halve the resolution, as in a ResNet.

Group norm (1803.08494) replaces batch norm, so images of a batch do not affect each other and the batch may be small.
GELU replaces ReLU.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.map_tokens import map_tokens
from mmtrain.types import Features


class ImageCNN(nn.Module):
    """A stem and stages; the positions of the last feature map are the tokens.

    Args:
        channels: channels of the stem and of each stage. Each halves height and width; the last is the token width.
        num_groups: groups of each group norm; must divide every entry of `channels`.
        dropout: probability of channel dropout in the residual branches, and of dropout on the tokens.

    Raises:
        ValueError: if there is no stage, or if the groups do not divide the channels.
    """

    def __init__(self, *, channels: Sequence[Size], num_groups: Size, dropout: Fraction) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(
                f"channels = {list(channels)} has no stage after the stem; set it to something like [32,64,128]"
            )
        for width in channels:
            if width % num_groups:
                raise ValueError(
                    f"channels has {width}, which is not divisible by num_groups = {num_groups};"
                    f" set it to {-(-width // num_groups) * num_groups}, or num_groups to a divisor of all channels"
                )
        self.dim = channels[-1]
        self.stem = Halving(in_channels=3, channels=channels[0], num_groups=num_groups)
        self.stages = nn.ModuleList(
            Stage(in_channels=before, channels=after, num_groups=num_groups, dropout=dropout)
            for before, after in pairwise(channels)
        )
        self.drop = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as in a ResNet

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the stem, then the stages."""
        return [(self.stem,), *((stage,) for stage in self.stages)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized.
            mask: unused; an image has no padding.

        Returns:
            tokens (B, H' * W', dim), row by row, with H' = ceil(H / 2 ** len(channels)); all are valid.
        """
        x = self.stem(values)
        for stage in self.stages:
            x = stage(x)
        x = self.drop(map_tokens(x))
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class Halving(nn.Module):
    """A 3x3 convolution of stride 2, norm and GELU."""

    def __init__(self, *, in_channels: int, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.GroupNorm(num_groups, channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, ceil(H / 2), ceil(W / 2))."""
        return self.act(self.norm(self.conv(x)))


class Stage(nn.Module):
    """Halve the resolution, then add a residual branch of two 3x3 convolutions (1512.03385, figure 2)."""

    def __init__(self, *, in_channels: int, channels: int, num_groups: int, dropout: float) -> None:
        super().__init__()
        self.down = Halving(in_channels=in_channels, channels=channels, num_groups=num_groups)
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(num_groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(num_groups, channels)
        self.act = nn.GELU()
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, ceil(H / 2), ceil(W / 2))."""
        x = self.down(x)
        added = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.act(x + self.drop(added))
