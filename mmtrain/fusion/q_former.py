"""Fusion by learned queries, which share self-attention with text (Q-Former of BLIP-2, 2301.12597, fig. 2).

One layer, pre-norm (BERT's layers in the paper are post-norm):

    [q; t] = [q; t] + attention([q; t])        self-attention that queries and text tokens share
    q = q + attention(q, others)               in every `cross_attention_frequency`-th layer, starting with the first
    q = q + MLP_q(q),   t = t + MLP_t(t)       separate feed-forward layers

Queries and text attend to each other without restriction; this is the paper's mask for image-text matching. The paper
has one image encoder; here the tokens of all modalities except text are concatenated. The output is the queries, so the
last layer has no MLP_t. Without text, only the queries are in the self-attention. With only text, there is no
cross-attention. A missing modality is not attended to.
"""

import torch
from torch import nn

from mmtrain.annotations import Depth, Fraction, PositiveInt, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps
from mmtrain.layers.q_layer import QLayer
from mmtrain.layers.streams import Streams, any_valid, check_counts
from mmtrain.types import Features


class QFormer(nn.Module):
    """Learned queries: self-attention shared with text, and cross-attention to the other modalities.

    Args:
        dims: feature width per modality.
        dim: width of the queries; each modality is projected to it.
        text: the modality that shares the self-attention. None means the modality named "text", if any.
        num_queries: number of queries, and of fused tokens.
        depth: number of layers.
        cross_attention_frequency: every `cross_attention_frequency`-th layer has cross-attention, starting with the
        first. num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `text` is not one of the modalities, or if a count is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        text: str | None,
        num_queries: Size,
        depth: Depth,
        cross_attention_frequency: PositiveInt,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts(
            {"num_queries": num_queries, "depth": depth, "cross_attention_frequency": cross_attention_frequency}
        )
        if text is not None and text not in dims:
            raise ValueError(f"text = {text} is not among the modalities; set it to {', '.join(sorted(dims))} or null")
        self.dim = dim
        self.sharing = [m for m in sorted(dims) if m == (text or "text")]
        self.others = [m for m in sorted(dims) if m not in self.sharing]
        self.streams = Streams(dims, dim)
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.layers = nn.ModuleList(
            QLayer(
                crossing=bool(self.others) and number % cross_attention_frequency == 0,
                text_goes_on=bool(self.sharing) and number < depth - 1,
                dim=dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
            )
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_queries, dim), valid where any token is valid.

        With `return_attention`, also return attention maps. Queries ("fused") and text attend to both in the last
        layer; these maps sum to 1. Queries attend to the others in the last layer with cross-attention; these also sum
        to 1.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        some = any_valid(masks)
        x = {"fused": self.queries.expand(len(some), -1, -1), **{m: tokens[m] for m in self.sharing}}
        valid = {"fused": some.expand(-1, len(self.queries)), **{m: masks[m] for m in self.sharing}}
        context = {m: tokens[m] for m in self.others}
        for layer in self.layers:
            x = layer(x, valid, context, {m: masks[m] for m in self.others}, maps)
        fused = Features(self.norm(x["fused"]), valid["fused"]).cleared()
        return fused if maps is None else (fused, maps)
