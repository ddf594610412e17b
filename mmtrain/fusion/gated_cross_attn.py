"""Fusion by gated cross-attention (Flamingo, 2204.14198, fig. 4): one modality, the reader, attends to the others.

    y = y + tanh(a) attention(norm(y), norm'(others)),   y = y + tanh(b) MLP(norm(y)),   then y = Block(y)

The gates a and b start at 0, as in the paper. At first, the fused tokens depend only on the reader. Parameters behind a
gate have zero gradient until the gate has moved. In the paper, text attends to images; here any modality can be the
reader, and all others are concatenated.

If the reader is missing from a sample, one learned token replaces it and attends to the others. In all other samples
this token is masked. A missing modality is not attended to. A single modality has only its self-attention blocks.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.gated_read import GatedRead
from mmtrain.layers.streams import Streams, any_valid, block_weights, check_counts, lengths
from mmtrain.types import Features


class GatedCrossAttn(nn.Module):
    """Layers of gated cross-attention from the reader to the others, each followed by a self-attention block.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        query_modality: the modality whose tokens are the queries. None means text if present, else the first by name.
        depth: number of layers.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `query_modality` is not one of the modalities, or if `depth` is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        query_modality: str | None,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"depth": depth})
        names = sorted(dims)
        if query_modality is not None and query_modality not in names:
            raise ValueError(
                f"query_modality = {query_modality} is not among the modalities; set it to {', '.join(names)} or null"
            )
        self.dim = dim
        self.query_modality = query_modality or ("text" if "text" in names else names[0])
        self.others = [m for m in names if m != self.query_modality]
        self.streams = Streams(dims, dim)
        self.stand_in = nn.Parameter(torch.randn(1, dim) * 0.02) if self.others else None
        self.layers = nn.ModuleList(
            GatedLayer(reading=bool(self.others), dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Map tokens (B, T_m, D_m) of every modality to those of the reader and its stand-in, (B, T_reader + 1, dim).

        A single modality has no stand-in. With `return_attention`, also return the attention maps of the last layer.
        The reader and the stand-in ("fused") attend to the others, summing to 1 over all of them, and then to
        themselves.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        x, masks = (
            {self.query_modality: tokens[self.query_modality]},
            {self.query_modality: features[self.query_modality].mask},
        )
        others = {m: features[m].mask for m in self.others}
        if self.stand_in is not None:
            x["fused"] = self.stand_in.expand(len(tokens[self.query_modality]), -1, -1)
            masks["fused"] = any_valid(others) & ~any_valid(masks)
        for layer in self.layers:
            x = layer(x, masks, {m: tokens[m] for m in self.others}, others, maps)
        y, mask = torch.cat(list(x.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        fused = Features(self.norm(y), mask).cleared()
        return fused if maps is None else (fused, maps)


class GatedLayer(nn.Module):
    """Gated cross-attention from the reader to the others, then self-attention.

    Args:
        reading: whether there are other modalities.
        dim: width of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
    """

    def __init__(self, *, reading: bool, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.gated = GatedRead(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) if reading else None
        self.block = Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)

    def forward(
        self,
        x: dict[str, Tensor],
        masks: dict[str, Tensor],
        context: dict[str, Tensor],
        context_masks: dict[str, Tensor],
        maps: AttentionMaps | None,
    ) -> dict[str, Tensor]:
        """Map the reader's tokens and the stand-in, (B, T, dim) each, to the same shapes.

        Args:
            x: tokens by the reader's name; also the stand-in as "fused" if there are other modalities.
            masks: masks of `x`, (B, T).
            context: tokens (B, T_m, dim) of the other modalities.
            context_masks: masks of `context`, (B, T_m).
            maps: attention maps are written into it; None to skip them.
        """
        y, mask = torch.cat(list(x.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        if self.gated is not None:
            keys, valid = torch.cat(list(context.values()), dim=1), torch.cat(list(context_masks.values()), dim=1)
            if maps is not None:
                weights = self.gated.read.weights(y, keys, valid)
                maps.update(attention_maps(weights, mask, lengths(x), lengths(context)))
            y = self.gated(y, keys, valid)
        if maps is not None:
            maps.update(attention_maps(block_weights(self.block, y, mask), mask, lengths(x), lengths(x)))
        y = self.block(y, mask)
        return dict(zip(x, y.split(list(lengths(x).values()), dim=1), strict=True))
