"""Fusion by attention pooling: learned queries attend to all tokens (PMA of Set Transformer, 1802.05365).

    PMA(Z) = LayerNorm(H + rFF(H)),   H = LayerNorm(S + Multihead(S, rFF(Z), rFF(Z)))     (eq. 6, 7 and 11)

S are the queries. Z is the set of all valid tokens, of any number of modalities. The row-wise layer on Z is one linear
map per modality to the common width, plus a learned modality embedding. The row-wise layer on H is an MLP. A missing
modality is ignored, because its mask is False.
"""

import torch
from torch import nn

from mmtrain.annotations import Fraction, Size, WidthRatio
from mmtrain.layers.attention import AttentionMaps, CrossAttention, attention_maps
from mmtrain.layers.mlp import MLP
from mmtrain.layers.streams import Streams, any_valid, check_counts, lengths
from mmtrain.types import Features


class AttentionPool(nn.Module):
    """One fused token per query, each a weighted mean of all valid tokens.

    Args:
        dims: feature width per modality.
        dim: width of the fused tokens; each modality is projected to it.
        num_queries: number of queries, and of fused tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if `num_queries` is below 1.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        num_queries: Size,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        check_counts({"num_queries": num_queries})
        self.dim = dim
        self.streams = Streams(dims, dim)
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * dim**-0.5)
        self.attention = CrossAttention(dim=dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = MLP(dim=dim, hidden_dim=int(dim * mlp_ratio), dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, features: dict[str, Features], *, return_attention: bool = False
    ) -> Features | tuple[Features, AttentionMaps]:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_queries, dim), valid where any token is valid.

        With `return_attention`, also return the attention of the queries ("fused") to each modality. It sums to 1 over
        all modalities.
        """
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        context, mask = torch.cat(list(tokens.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        queries = self.queries.expand(len(context), -1, -1)
        some = any_valid(masks).expand(-1, queries.shape[1])
        hidden = self.norm1(queries + self.drop(self.attention(queries, context, mask)))
        fused = Features(self.norm2(hidden + self.drop(self.mlp(hidden))), some).cleared()
        if not return_attention:
            return fused
        weights = self.attention.weights(queries, context, mask)
        return fused, attention_maps(weights, some, {"fused": queries.shape[1]}, lengths(tokens))
