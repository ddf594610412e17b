"""Fusion by merged attention: one Transformer over the tokens of all modalities (ViLT, 2102.03334, sec. 3.1).

    z^0 = [class; W_1 x_1 + kind_1; ...; W_M x_M + kind_M],   z^(l+1) = Block(z^l),   out = norm(z^depth)

The paper has text and image; here any number of modalities stand side by side, in sorted order. The class token is the
fusion's own and valid in every sample that has anything; encoders may bring theirs, which are tokens like others. A
modality that a sample lacks is not read.
"""

import torch
from torch import nn

from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.streams import Streams, anything, block_weights, lengths
from mmtrain.types import Features


class MergedAttn(nn.Module):
    """A Transformer over a class token and all tokens.

    Args:
        dims: width by modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of blocks.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of a block's MLP over `dim`.
        dropout: of what attention and MLP add.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, depth: int, num_heads: int, mlp_ratio: float, dropout: float
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

        The maps, when they are asked for, are those of the last block, by each two of the modalities and "fused", which
        is the class token; they sum to 1 over all that a token reads.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        streams = self.streams(features)
        masks = {m: features[m].mask for m in streams}
        some = anything(masks)
        tokens = {"fused": self.class_token.expand(len(some), -1, -1), **streams}
        mask = torch.cat([some, *masks.values()], dim=1)
        x = torch.cat(list(tokens.values()), dim=1)
        for block in self.blocks:
            if maps is not None:
                maps.update(attention_maps(block_weights(block, x, mask), mask, lengths(tokens), lengths(tokens)))
            x = block(x, mask)
        fused = Features(self.norm(x), mask).cleared()
        return fused if maps is None else (fused, maps)
