"""Fusion by crossmodal Transformers (MulT, 1906.00295, sec. 3.2): one per ordered pair, in which a attends to b.

    z_ab^0 = x_a,   z' = z_ab^i + attention(norm(z_ab^i), norm(x_b)),   z_ab^(i+1) = z' + MLP(norm(z'))    (eq. 4)
    z_a = Blocks_a([z_ab for each b])                                  self-attention at the width (M - 1) dim
    out_a = W_a norm(z_a)

Every layer attends to the low-level x_b, as in the paper, and lengths may differ. Differences from the paper: the
residual path is not normalized (pre-norm, as in the authors' code), and the encoders add the positions. The output is
all tokens, projected to `dim`; the paper keeps the last element of each sequence. The paper has three modalities. M
modalities have M (M - 1) stacks; a single modality has only its self-attention.

If b is missing, attention adds zeros, and z_ab is x_a after its feed-forward layers. Zeros instead of z_ab would lose
x_a when a is the only modality present.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, attention_maps
from mmtrain.layers.block import Block
from mmtrain.layers.streams import CrossBlock, Streams, block_weights, check_counts, cross_weights
from mmtrain.types import Features


class MulT(nn.Module):
    """A crossmodal stack per ordered pair, then a self-attention stack per modality.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of crossmodal layers per pair.
        self_depth: number of self-attention blocks per modality, each of width (M - 1) * `dim`.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of its input width.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `depth` or `self_depth` is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        depth: Depth,
        self_depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"depth": depth, "self_depth": self_depth})
        self.dim = dim
        self.streams = Streams(dims, dim)
        names = sorted(dims)
        self.targets = nn.ModuleDict(
            {
                a: Target(
                    sources=[b for b in names if b != a],
                    dim=dim,
                    depth=depth,
                    self_depth=self_depth,
                    num_heads=num_heads,
                    mlp_ratio=mlp_ratio,
                    dropout=dropout,
                )
                for a in names
            }
        )

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, sum of T_m, dim), in the sorted order of modalities.

        With `return_attention`, also return the attention maps of each pair's last crossmodal layer, which sum to 1 per
        pair, and of each modality's last self-attention block.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        together = torch.cat([target(a, tokens, masks, maps) for a, target in self.targets.items()], dim=1)
        fused = Features(together, torch.cat(list(masks.values()), dim=1)).cleared()
        return fused if maps is None else (fused, maps)


class Target(nn.Module):
    """One modality attends to each source in a separate stack, then to itself."""

    def __init__(
        self,
        *,
        sources: list[str],
        dim: int,
        depth: int,
        self_depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stacks = nn.ModuleDict(
            {
                b: nn.ModuleList(
                    CrossBlock(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
                )
                for b in sources
            }
        )
        width = dim * max(1, len(sources))
        self.blocks = nn.ModuleList(
            Block(dim=width, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(self_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)

    def forward(
        self, name: str, tokens: dict[str, Tensor], masks: dict[str, Tensor], maps: AttentionMaps | None
    ) -> Tensor:
        """Map tokens (B, T_m, dim), masks (B, T_m) to the tokens of modality `name`, (B, T_name, dim).

        If `maps` is given, write the attention maps into it.
        """
        parts, itself = [], {name: tokens[name].shape[1]}
        for source, stack in self.stacks.items():
            z, context, mask = tokens[name], tokens[source], masks[source]
            for layer in cast(nn.ModuleList, stack):
                if maps is not None:
                    weights = cross_weights(layer, z, context, mask)
                    maps.update(attention_maps(weights, masks[name], itself, {source: context.shape[1]}))
                z = layer(z, context, mask)
            parts.append(z)
        x = torch.cat(parts, dim=2) if parts else tokens[name]
        for block in self.blocks:
            if maps is not None:
                maps.update(attention_maps(block_weights(block, x, masks[name]), masks[name], itself, itself))
            x = block(x, masks[name])
        return self.out(self.norm(x))
