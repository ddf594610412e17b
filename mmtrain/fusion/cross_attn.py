"""Fusion by cross-attention: the tokens of each modality attend to those of all others (as in LXMERT, 1908.07490).

The paper has exactly two modalities. Here all other modalities form one sequence, so any number works. With one
modality, a block is self-attention. A missing modality is ignored, because its mask is False. Tokens with nothing to
attend to keep their value.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, CrossAttention, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.streams import block_weights, lengths
from mmtrain.types import Features


class CrossAttn(nn.Module):
    """Layers of cross-attention, each followed by a self-attention block per modality.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of layers.
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
        self.modalities = sorted(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in self.modalities})
        self.kinds = nn.ParameterDict({m: nn.Parameter(torch.randn(dim) * 0.02) for m in self.modalities})
        self.layers = nn.ModuleList(
            CrossLayer(modalities=self.modalities, dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, sum of T_m, dim), in the sorted order of modalities.

        With `return_attention`, also return the attention maps of the last layer: each modality to the others, summing
        to 1 over all others, and each modality to itself.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        masks = {m: features[m].mask for m in self.modalities}
        tokens = {m: self.projections[m](features[m].cleared().tokens) + self.kinds[m] for m in self.modalities}
        for layer in self.layers:
            tokens = layer(tokens, masks, maps)
        together = torch.cat([tokens[m] for m in self.modalities], dim=1)
        mask = torch.cat([masks[m] for m in self.modalities], dim=1)
        fused = Features(self.norm(together), mask).cleared()
        return fused if maps is None else (fused, maps)


class CrossLayer(nn.Module):
    """Each modality attends to the others, then to itself."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.reading = len(modalities) > 1
        if self.reading:
            self.norms = nn.ModuleDict({m: nn.LayerNorm(dim) for m in modalities})
            self.drop = nn.Dropout(dropout)
            self.cross = nn.ModuleDict({m: CrossAttention(dim=dim, num_heads=num_heads) for m in modalities})
        self.blocks = nn.ModuleDict(
            {m: Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
        )

    def forward(
        self, tokens: dict[str, Tensor], masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D), masks (B, T_m) to tokens of the same shapes. Write attention maps into `maps`."""
        if self.reading:
            normed = {m: self.norms[m](x) for m, x in tokens.items()}
            tokens = {m: x + self.drop(self._read(m, normed, masks, maps)) for m, x in tokens.items()}
        if maps is not None:
            for m, x in tokens.items():
                itself, weights = {m: x.shape[1]}, block_weights(self.blocks[m], x, masks[m])
                maps.update(attention_maps(weights, masks[m], itself, itself))
        return {m: self.blocks[m](x, masks[m]) for m, x in tokens.items()}

    def _read(
        self, modality: str, normed: dict[str, Tensor], masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> Tensor:
        cross = cast(CrossAttention, self.cross[modality])
        query, others = normed[modality], {m: x for m, x in normed.items() if m != modality}
        context = torch.cat(list(others.values()), dim=1)
        mask = torch.cat([masks[m] for m in others], dim=1)
        if maps is not None:
            weights = cross.weights(query, context, mask)
            maps.update(attention_maps(weights, masks[modality], {modality: query.shape[1]}, lengths(others)))
        return cross(query, context, mask)
