"""Several images per row: an image encoder on each image, with all tokens concatenated.

Only images that are present are encoded, so a batch norm in the encoder does not use padding for its statistics. In
contrast to video frames, each image keeps all its tokens and gets no position; the modules after it know the order.
"""

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.types import Features

Layers = list[tuple[nn.Module | nn.Parameter, ...]]


@runtime_checkable
class Layered(Protocol):
    """An image encoder that lists its layers."""

    def layers(self) -> Layers:
        """Return the embeddings or the stem, then one entry per block."""
        ...


class Pictures(nn.Module):
    """An image encoder, applied to each image.

    Args:
        image: maps images (P, 3, H, W) to `Features` with the same number of tokens each, of width `image.dim`.

    Attributes:
        takes_several: marks that the tokens of a row belong to several media items, equally many per item.
    """

    takes_several = True

    def __init__(self, *, image: nn.Module) -> None:
        super().__init__()
        self.image = image
        self.dim = cast(int, image.dim)

    def layers(self) -> Layers:
        """Return the layers of the image encoder; the complete encoder as one layer if it does not list them."""
        return self.image.layers() if isinstance(self.image, Layered) else [(self.image,)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, N, 3, H, W), floating point, normalized.
            mask: (B, N), bool, True where an image is present; None if all are. At least one in the batch must be.

        Returns:
            tokens (B, N * K, dim), mask (B, N * K): K tokens per image, in order.
        """
        present = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask
        tokens, valid = self.image(values[present], None).cleared()
        rows = present.flatten().nonzero().squeeze(1)
        scattered = tokens.new_zeros(present.numel(), *tokens.shape[1:]).index_copy(0, rows, tokens)
        known = valid.new_zeros(present.numel(), valid.shape[1]).index_copy(0, rows, valid)
        return Features(
            scattered.unflatten(0, present.shape).flatten(1, 2), known.unflatten(0, present.shape).flatten(1, 2)
        )
