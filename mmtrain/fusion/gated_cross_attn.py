"""Fusion by gated cross-attention (Flamingo, 2204.14198, fig. 4): one modality, the reader, reads the others.

    y = y + tanh(a) attention(norm(y), norm'(others)),   y = y + tanh(b) MLP(norm(y)),   then y = Block(y)

The gates a and b start at 0, as in the paper: at first the fused tokens are those of the reader alone, the others have
no influence, and what stands behind a gate has a gradient of zero until the gate has moved. The paper has text that
reads images; here the reader is any modality, and all the others stand side by side.

A sample that lacks its reader gets one token in its stead, learned, which reads what there is; in other samples it is
not valid. A modality that a sample lacks is not read. One modality alone has its blocks only.
"""

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.gated_read import GatedRead
from mmtrain.layers.streams import Streams, anything, block_weights, check_counts, lengths
from mmtrain.types import Features


class GatedCrossAttn(nn.Module):
    """Layers in which the reader reads the others behind gates, each followed by a block of its own.

    Args:
        dims: width by modality.
        dim: width of the fused tokens; each modality is projected to it.
        reader: the modality whose tokens read; None for text if there is one, else the first by name.
        depth: number of layers.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for a `reader` that is not among the modalities, or no layers.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        reader: str | None,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_counts({"depth": depth})
        names = sorted(dims)
        if reader is not None and reader not in names:
            raise ValueError(f"reader = {reader} is not among the modalities; set it to {', '.join(names)} or null")
        self.dim = dim
        self.reader = reader or ("text" if "text" in names else names[0])
        self.others = [m for m in names if m != self.reader]
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

        Without others there is no stand-in. The maps, when they are asked for, are those of the last layer: what the
        reader and the stand-in, "fused", read of the others, summing to 1 over all of them, and then of themselves.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        x, masks = {self.reader: tokens[self.reader]}, {self.reader: features[self.reader].mask}
        others = {m: features[m].mask for m in self.others}
        if self.stand_in is not None:
            x["fused"] = self.stand_in.expand(len(tokens[self.reader]), -1, -1)
            masks["fused"] = anything(others) & ~anything(masks)
        for layer in self.layers:
            x = layer(x, masks, {m: tokens[m] for m in self.others}, others, maps)
        y, mask = torch.cat(list(x.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        fused = Features(self.norm(y), mask).cleared()
        return fused if maps is None else (fused, maps)


class GatedLayer(nn.Module):
    """The reader reads the others behind gates, then itself.

    Args:
        reading: whether there are others.
        dim: width of the tokens.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.
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
            x: tokens by the reader's name, the stand-in as "fused" if there are others.
            masks: theirs, (B, T).
            context: (B, T_m, dim) by modality that is read.
            context_masks: theirs, (B, T_m).
            maps: what was read is written into it; None when that is not wanted.
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
