"""Fusion through bottleneck tokens (MBT, 2107.00135, eq. 8-9): modalities exchange information through a few tokens.

    [z_m; f_m] = Block_m([z_m; f]) for each modality m,   f = mean of f_m over the modalities that are present

Layers before `fusion_layer` are separate per modality: z_m = Block_m(z_m). A missing modality is not in the mean, and
no token attends to it. The paper has two modalities and classifies by the class token of each. Here the number of
modalities is arbitrary, and the output is the bottleneck tokens followed by all tokens. With one fusion layer, only the
bottleneck tokens are fused; the other tokens receive information from the second fusion layer on. With one modality,
the bottleneck tokens are additional tokens of it.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.streams import Streams, any_valid, block_weights, check_counts
from mmtrain.types import Features


class Bottleneck(nn.Module):
    """A Transformer per modality; the Transformers share bottleneck tokens.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of layers.
        fusion_layer: index of the first layer with bottlenecks, from 0; earlier layers are separate per modality.
        num_bottlenecks: number of bottleneck tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if no layer has bottlenecks, or if `num_bottlenecks` is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        depth: Depth,
        fusion_layer: Depth,
        num_bottlenecks: Size,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"depth": depth, "num_bottlenecks": num_bottlenecks})
        if not 0 <= fusion_layer < depth:
            raise ValueError(
                f"fusion_layer = {fusion_layer} is not one of the layers 0 to {depth - 1} of depth = {depth};"
                " set fusion_layer to one of them, or raise depth"
            )
        self.dim = dim
        self.streams = Streams(dims, dim)
        self.bottlenecks = nn.Parameter(torch.randn(num_bottlenecks, dim) * 0.02)
        self.own = nn.ModuleList(
            OwnLayer(modalities=sorted(dims), dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(fusion_layer)
        )
        self.layers = nn.ModuleList(
            BottleneckLayer(modalities=sorted(dims), dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(depth - fusion_layer)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_bottlenecks + sum of T_m, dim), bottlenecks first.

        With `return_attention`, also return the attention maps of the last layer. A modality attends to itself and to
        the bottlenecks ("fused"). The maps of the bottlenecks are the mean over the modalities that are present.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        some = any_valid(masks)
        shared = self.bottlenecks.expand(len(some), -1, -1)
        for layer in self.own:
            tokens = layer(tokens, masks)
        for layer in self.layers:
            tokens, shared = layer(tokens, shared, masks, maps)
        x = self.norm(torch.cat([shared, *tokens.values()], dim=1))
        valid = torch.cat([some.expand(-1, shared.shape[1]), *masks.values()], dim=1)
        fused = Features(x, valid).cleared()
        return fused if maps is None else (fused, maps)


class OwnLayer(nn.Module):
    """A separate Transformer block per modality."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {m: Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
        )

    def forward(self, tokens: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D), masks (B, T_m) to tokens of the same shapes."""
        return {m: self.blocks[m](x, masks[m]) for m, x in tokens.items()}


class BottleneckLayer(nn.Module):
    """Each modality attends to itself and the bottlenecks. The new bottlenecks are the mean over the modalities."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {m: Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
        )

    def forward(
        self, tokens: dict[str, Tensor], shared: Tensor, masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Map tokens (B, T_m, D), bottlenecks (B, N, D) and masks (B, T_m) to tokens and bottlenecks of these shapes.

        If `maps` is given, write the attention maps into it.
        """
        available = {m: mask.any(dim=1, keepdim=True) for m, mask in masks.items()}
        number = torch.stack(list(available.values())).sum(dim=0).clamp(min=1).unsqueeze(2)  # (B, 1, 1)
        together = {m: torch.cat([x, shared], dim=1) for m, x in tokens.items()}
        valid = {m: torch.cat([masks[m], some.expand(-1, shared.shape[1])], dim=1) for m, some in available.items()}
        if maps is not None:
            self._write(maps, together, valid, number, shared.shape[1])
        out = {m: self.blocks[m](x, valid[m]) for m, x in together.items()}
        parts = {m: x.split([tokens[m].shape[1], shared.shape[1]], dim=1) for m, x in out.items()}
        masked = torch.stack([part[1].masked_fill(~available[m].unsqueeze(2), 0.0) for m, part in parts.items()])
        return {m: part[0] for m, part in parts.items()}, masked.sum(dim=0) / number

    def _write(
        self,
        maps: AttentionMaps,
        together: dict[str, Tensor],
        valid: dict[str, Tensor],
        number: Tensor,
        num_bottlenecks: int,
    ) -> None:
        among = []
        for m, x in together.items():
            lengths = {m: x.shape[1] - num_bottlenecks, "fused": num_bottlenecks}
            maps.update(attention_maps(block_weights(self.blocks[m], x, valid[m]), valid[m], lengths, lengths))
            maps["fused", m] = maps["fused", m] / number
            among.append(maps["fused", "fused"])
        maps["fused", "fused"] = torch.stack(among).sum(dim=0) / number
