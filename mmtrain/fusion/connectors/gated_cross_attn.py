"""Gated cross-attention from the text to other modalities, inside the language model (Flamingo, 2204.14198, fig. 4).

The text contains only a placeholder for each media item. A gated cross-attention layer precedes every `every`-th block
of the language model. Each token attends to the most recent media item before it, in each modality (the paper's 3.1.3).
The gates start at 0, so the language model is unchanged at first. Difference from the paper: media tokens are only
projected, not resampled first.
"""

from functools import partial

from torch import nn

from mmtrain.annotations import Fraction, PositiveInt, Size, WidthRatio
from mmtrain.layers.gated_read import GatedRead
from mmtrain.layers.streams import check_counts
from mmtrain.types import Features


class GatedCrossAttnConnector(nn.Module):
    """A linear projection, and the gated layers that read its output.

    Args:
        in_dim: width of the encoder's tokens.
        dim: width of the language model.
        cross_attn_every_n_layers: a gated layer precedes every `cross_attn_every_n_layers`-th block, starting with the
        first block. num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `cross_attn_every_n_layers` is not a positive integer.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: Size,
        cross_attn_every_n_layers: PositiveInt,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"cross_attn_every_n_layers": cross_attn_every_n_layers})
        self.proj = nn.Linear(in_dim, dim)
        self.cross_attn_every_n_layers = cross_attn_every_n_layers
        self.make = partial(GatedRead, dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)

    def readers(self, num_blocks: int) -> nn.ModuleDict:
        """Build the gated layers, keyed by the index of the block that follows. All modalities share them."""
        return nn.ModuleDict(
            {str(number): self.make() for number in range(0, num_blocks, self.cross_attn_every_n_layers)}
        )

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to (B, T, dim), (B, T)."""
        tokens, mask = features.cleared()
        return Features(self.proj(tokens), mask)
