"""Fusion by a resampler: a few learned latents read all tokens (Perceiver, 2103.03206; Flamingo, 2204.14198, fig. 5).

    z = z + attention(norm(z), norm'([x; z])),   z = z + MLP(norm(z))

x are the tokens of all modalities side by side, the same in every layer. As in Flamingo the latents stand among the
keys, so that they read each other in the same softmax; the Perceiver has layers of their own for that. Out come the
latents: a fixed number, whatever the lengths, at a cost linear in them. A modality that a sample lacks is not read.
"""

import torch
from torch import nn

from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.streams import CrossBlock, Streams, anything, check_counts, cross_weights, lengths
from mmtrain.types import Features


class Perceiver(nn.Module):
    """Latents that read all tokens and each other.

    Args:
        dims: width by modality.
        dim: width of the latents; each modality is projected to it.
        num_latents: how many there are, and so the number of fused tokens.
        depth: number of layers.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for no latents or no layers.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        num_latents: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
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
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_latents, dim), valid where there is anything.

        The maps, when they are asked for, are those of the last layer: what the latents, "fused", read of each modality
        and of each other, summing to 1 together.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        z = self.latents.expand(len(anything(masks)), -1, -1)
        some = anything(masks).expand(-1, z.shape[1])
        mask = torch.cat([*masks.values(), some], dim=1)
        for layer in self.layers:
            context = torch.cat([*tokens.values(), z], dim=1)
            if maps is not None:
                weights, queries = cross_weights(layer, z, context, mask), {"fused": z.shape[1]}
                maps.update(attention_maps(weights, some, queries, lengths(tokens) | queries))
            z = layer(z, context, mask)
        fused = Features(self.norm(z), some).cleared()
        return fused if maps is None else (fused, maps)
