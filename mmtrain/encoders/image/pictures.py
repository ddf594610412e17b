"""Several pictures a row: any image encoder on each, the tokens of all side by side.

Only pictures that are there are encoded, so that a batch norm in the encoder takes no statistics of padding. Unlike the
frames of a film each keeps all its tokens, and nothing is said of their order: who reads them knows their places.
"""

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.types import Features

Layers = list[tuple[nn.Module | nn.Parameter, ...]]


@runtime_checkable
class Layered(Protocol):
    """An image encoder that tells its layers."""

    def layers(self) -> Layers:
        """The embeddings or the stem first, then one entry a block."""
        ...


class Pictures(nn.Module):
    """An image encoder on each picture.

    Args:
        image: maps pictures (P, 3, H, W) to `Features` with as many tokens for each, and says its width in `dim`.

    Attributes:
        takes_several: a row's tokens are those of several media, as many of each.
    """

    takes_several = True

    def __init__(self, *, image: nn.Module) -> None:
        super().__init__()
        self.image = image
        self.dim = cast(int, image.dim)

    def layers(self) -> Layers:
        """Those of the image encoder; the whole of it, if it tells none."""
        return self.image.layers() if isinstance(self.image, Layered) else [(self.image,)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode pictures.

        Args:
            values: (B, N, 3, H, W), floating point, normalised.
            mask: (B, N), bool, True where a picture is; None when all are. At least one of the batch is.

        Returns:
            tokens (B, N * K, dim), mask (B, N * K): K of each picture, in order.
        """
        there = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask
        tokens, valid = self.image(values[there], None).cleared()
        rows = there.flatten().nonzero().squeeze(1)
        whole = tokens.new_zeros(there.numel(), *tokens.shape[1:]).index_copy(0, rows, tokens)
        known = valid.new_zeros(there.numel(), valid.shape[1]).index_copy(0, rows, valid)
        return Features(whole.unflatten(0, there.shape).flatten(1, 2), known.unflatten(0, there.shape).flatten(1, 2))
