"""Fusion by merged attention: one Transformer over the tokens of all modalities (ViLT, 2102.03334, sec. 3.1).

    z^0 = [class; W_1 x_1 + kind_1; ...; W_M x_M + kind_M],   z^(l+1) = Block(z^l),   out = norm(z^depth)

The paper has text and image; here any number of modalities are concatenated in sorted order. The fusion adds a class
token, valid in every sample with any valid token. Class tokens of the encoders are treated like other tokens. A missing
modality is not attended to.
"""

import torch
from torch import nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.streams import Streams, any_valid, block_weights, lengths
from mmtrain.types import Features


class MergedAttn(nn.Module):
    """A Transformer over a class token and all tokens.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.streams = Streams(dims, dim)
        self.class_token = nn.Parameter(torch.randn(1, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, 1 + sum of T_m, dim), the class token first.

        With `return_attention`, also return the attention maps of the last block, for each pair of modalities and
        "fused", the class token. They sum to 1 over everything that a token attends to.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        streams = self.streams(features)
        masks = {m: features[m].mask for m in streams}
        some = any_valid(masks)
        tokens = {"fused": self.class_token.expand(len(some), -1, -1), **streams}
        mask = torch.cat([some, *masks.values()], dim=1)
        x = torch.cat(list(tokens.values()), dim=1)
        for block in self.blocks:
            if maps is not None:
                maps.update(attention_maps(block_weights(block, x, mask), mask, lengths(tokens), lengths(tokens)))
            x = block(x, mask)
        fused = Features(self.norm(x), mask).cleared()
        return fused if maps is None else (fused, maps)
