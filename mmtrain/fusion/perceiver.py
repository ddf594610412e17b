"""Fusion by a resampler: learned latents attend to all tokens (Perceiver, 2103.03206; Flamingo, 2204.14198, fig. 5).

    z = z + attention(norm(z), norm'([x; z])),   z = z + MLP(norm(z))

x are the concatenated tokens of all modalities, the same in every layer. As in Flamingo, the latents are also among the
keys, so they attend to each other in the same softmax. The Perceiver has separate self-attention layers for that. The
output is the latents: a fixed number of tokens, at a cost linear in the input length. A missing modality is not
attended to.
"""

import torch
from torch import nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.streams import CrossBlock, Streams, any_valid, check_counts, cross_weights, lengths
from mmtrain.types import Features


class Perceiver(nn.Module):
    """Latents that attend to all tokens and to each other.

    Args:
        dims: feature width per modality.
        dim: width of the latents; each modality is projected to it.
        num_latents: number of latents, and of fused tokens.
        depth: number of layers.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `num_latents` or `depth` is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        num_latents: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"num_latents": num_latents, "depth": depth})
        self.dim = dim
        self.streams = Streams(dims, dim)
        self.latents = nn.Parameter(torch.randn(num_latents, dim) * 0.02)
        self.layers = nn.ModuleList(
            CrossBlock(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_latents, dim), valid where any token is valid.

        With `return_attention`, also return the attention maps of the last layer: the latents ("fused") to each
        modality and to each other, summing to 1 together.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        z = self.latents.expand(len(any_valid(masks)), -1, -1)
        some = any_valid(masks).expand(-1, z.shape[1])
        mask = torch.cat([*masks.values(), some], dim=1)
        for layer in self.layers:
            context = torch.cat([*tokens.values(), z], dim=1)
            if maps is not None:
                weights, queries = cross_weights(layer, z, context, mask), {"fused": z.shape[1]}
                maps.update(attention_maps(weights, some, queries, lengths(tokens) | queries))
            z = layer(z, context, mask)
        fused = Features(self.norm(z), some).cleared()
        return fused if maps is None else (fused, maps)
