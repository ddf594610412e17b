"""Images of any shape as a sequence of patches, as in NaViT and SigLIP 2 (2307.06304; 2502.14786, 2.4.2: NaFlex).

An image keeps its shape up to whole patches. It is resized so that it has as many patches as the budget allows.
"""

import math

import torch
from torch import Tensor

_CLOSE = 1e-5  # of the factor that is searched for
_LARGEST = 100.0
EXTRA = 2  # numbers behind the pixels of a patch: its row and its column


def patch_grid(height: int, width: int, *, patch_size: int, max_patches: int) -> tuple[int, int]:
    """Return the rows and columns of patches of an image: the most that fit into the budget.

    Both sides are scaled by one factor, which bisection finds, and rounded up to whole patches, at least one.

    >>> patch_grid(100, 200, patch_size=16, max_patches=256), patch_grid(7, 301, patch_size=16, max_patches=256)
    ((11, 23), (3, 85))
    """

    def side(factor: float, size: int) -> int:
        return max(1, math.ceil(size * factor / patch_size))

    low, high = _CLOSE / 10, _LARGEST
    while high - low >= _CLOSE:
        middle = (low + high) / 2
        if side(middle, height) * side(middle, width) <= max_patches:
            low = middle
        else:
            high = middle
    return side(low, height), side(low, width)


def to_patches(image: Tensor, patch_size: int) -> Tensor:
    """Cut an image into patches.

    Args:
        image: (3, H, W), sides divisible by the patch size.
        patch_size: height and width of a patch.

    Returns:
        (N, patch_size * patch_size * 3 + 2), row by row: pixels with the channel last, then the row and column.
    """
    channels, height, width = image.shape
    rows, columns = height // patch_size, width // patch_size
    grid = image.reshape(channels, rows, patch_size, columns, patch_size).permute(1, 3, 2, 4, 0)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(image.dtype)
    return torch.cat([grid.reshape(rows * columns, -1), places.reshape(-1, EXTRA)], dim=1)


def grid_of(patches: Tensor, mask: Tensor) -> Tensor:
    """Return the rows and columns (B, 2), int64, of images as patches (B, N, P + 2) with mask (B, N); at least one."""
    places = patches[..., -EXTRA:].masked_fill(~mask.unsqueeze(-1), 0.0)
    return places.amax(dim=1).round().long() + 1
