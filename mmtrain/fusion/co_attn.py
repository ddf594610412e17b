"""Fusion by co-attention (ViLBERT, 1908.02265, fig. 2b): the queries of each stream attend to the other streams.

    x_a = x_a + P_a mean over b of softmax(Q_a K_b^T / sqrt(d)) V_b
    x_a = x_a + MLP_a(norm(x_a)),   then x_a = Block_a(x_a)

Q, K and V of a stream are computed once, and every other stream reads the same K and V, as in the paper. The paper has
two streams. Here a stream attends to each other stream with a separate softmax and takes the mean over those present.
In cross_attn, all other streams share one softmax, in which a hundred patches can outweigh one vector. Here each stream
has the same weight, and the result passes a feed-forward sub-layer. The layers are pre-norm; the paper's are post-norm.

A stream with nothing to attend to adds zeros. A single modality has only its self-attention blocks.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attend, attention_maps, attention_weights, check_heads
from mmtrain.layers.block import Block
from mmtrain.layers.streams import FeedForward, Streams, block_weights
from mmtrain.types import Features


class CoAttn(nn.Module):
    """Layers of co-attention, each followed by a Transformer block per stream.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of layers.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
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
        self.layers = nn.ModuleList(
            CoLayer(modalities=sorted(dims), dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, sum of T_m, dim), in the sorted order of modalities.

        With `return_attention`, also return the attention maps of the last layer. The maps of a stream to each other
        stream are weighted by its share in the mean, so they sum to 1 over all others. Self-attention maps follow.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        for layer in self.layers:
            tokens = layer(tokens, masks, maps)
        together = self.norm(torch.cat(list(tokens.values()), dim=1))
        fused = Features(together, torch.cat(list(masks.values()), dim=1)).cleared()
        return fused if maps is None else (fused, maps)


class CoLayer(nn.Module):
    """Each stream attends to the others, then to itself."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.reading = len(modalities) > 1
        if self.reading:
            self.norms = nn.ModuleDict({m: nn.LayerNorm(dim) for m in modalities})
            self.attn = CoAttention(modalities=modalities, dim=dim, num_heads=num_heads)
            self.drop = nn.Dropout(dropout)
            self.feed = nn.ModuleDict(
                {m: FeedForward(dim=dim, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
            )
        self.blocks = nn.ModuleDict(
            {m: Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
        )

    def forward(
        self, tokens: dict[str, Tensor], masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D), masks (B, T_m) to tokens of the same shapes. Write attention maps into `maps`."""
        if self.reading:
            read = self.attn({m: self.norms[m](x) for m, x in tokens.items()}, masks, maps)
            tokens = {m: x + self.drop(read[m]) for m, x in tokens.items()}
            tokens = {m: x + self.feed[m](x) for m, x in tokens.items()}
        if maps is not None:
            for m, x in tokens.items():
                itself, weights = {m: x.shape[1]}, block_weights(self.blocks[m], x, masks[m])
                maps.update(attention_maps(weights, masks[m], itself, itself))
        return {m: self.blocks[m](x, masks[m]) for m, x in tokens.items()}


class CoAttention(nn.Module):
    """Cross-attention of each stream to all others: the mean of one attention per other stream that is present."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.ModuleDict({m: nn.Linear(dim, 3 * dim) for m in modalities})
        self.proj = nn.ModuleDict({m: nn.Linear(dim, dim) for m in modalities})

    def forward(
        self, tokens: dict[str, Tensor], masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D), masks (B, T_m) to tokens of the same shapes, zeros where all others are missing."""
        heads = {
            m: self.qkv[m](x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4) for m, x in tokens.items()
        }
        available = {m: mask.any(dim=1)[:, None, None] for m, mask in masks.items()}
        read = {}
        for m in tokens:
            others = [other for other in tokens if other != m]
            number = torch.stack([available[other] for other in others]).sum(dim=0)  # (B, 1, 1)
            answers = [attend(heads[m][0], heads[other][1], heads[other][2], masks[other]) for other in others]
            mean = torch.stack(answers).sum(dim=0).transpose(1, 2).flatten(2) / number.clamp(min=1)
            read[m] = self.proj[m](mean).masked_fill(number == 0, 0.0)
            if maps is None:
                continue
            for other in others:
                weights = attention_weights(heads[m][0], heads[other][1], masks[other]) / number.clamp(min=1)
                lengths = {m: tokens[m].shape[1]}, {other: tokens[other].shape[1]}
                maps.update(attention_maps(weights, masks[m], *lengths))
        return read
