"""Random Fourier features (2006.10739, gamma of equation 4) of pixel colours, averaged over each patch.

A linear patch embedding maps similar colours to similar vectors, and a network learns slowly to separate them (the
paper's spectral bias). A wave along a random direction of colour space has several periods between black and white, so
similar colours get different features. The mean over a patch then resembles a histogram of its colours, independent of
position.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ColorFeatures(nn.Module):
    """Cosines of colour along random directions, averaged over each patch; constant and equal in every process.

    Args:
        num_features: number of waves.
        patch_size: height and width of a patch in pixels.
        frequency: standard deviation of the frequencies, in radians per unit of normalized pixel values.
    """

    directions: Tensor
    phases: Tensor

    def __init__(self, *, num_features: int, patch_size: int, frequency: float = 10.0) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.halved = 2 if patch_size % 2 == 0 else 1  # evaluates a quarter of the pixels for nearly the same mean
        generator = torch.Generator().manual_seed(0)
        scale = frequency / math.sqrt(3)
        self.register_buffer("directions", torch.randn(num_features, 3, 1, 1, generator=generator) * scale)
        self.register_buffer("phases", torch.rand(num_features, generator=generator) * 2 * math.pi)

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H * W / patch_size**2, num_features), without gradient to the pixels."""
        with torch.no_grad():
            pixels = F.avg_pool2d(values, self.halved)
            waves = F.conv2d(pixels, self.directions, self.phases).cos()
            return F.avg_pool2d(waves, self.patch_size // self.halved).flatten(2).transpose(1, 2)
