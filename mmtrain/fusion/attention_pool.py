"""Fusion by attention pooling: learned queries read all tokens of all modalities (PMA of Set Transformer, 1802.05365).

    PMA(Z) = LayerNorm(H + rFF(H)),   H = LayerNorm(S + Multihead(S, rFF(Z), rFF(Z)))     (eq. 6, 7 and 11)

S are the queries, and Z is the set of all valid tokens, of any number of modalities. The row-wise layer on Z is one
linear map a modality, which brings it to the common width, plus a learned vector that says which modality a token is
of; the one on H is an MLP. A modality that a sample lacks is not read: its mask is False.
"""

import torch
from torch import nn

from mmtrain.layers.attention import AttentionMaps, CrossAttention, attention_maps
from mmtrain.layers.mlp import MLP
from mmtrain.layers.streams import Streams, anything, check_counts, lengths
from mmtrain.types import Features


class AttentionPool(nn.Module):
    """As many fused tokens as there are queries, each a mixture of all valid tokens.

    Args:
        dims: width by modality.
        dim: width of the fused tokens; each modality is projected to it.
        num_queries: how many tokens come out.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of the MLP over `dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for no queries.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, num_queries: int, num_heads: int, mlp_ratio: float, dropout: float
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
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_queries, dim), valid where there is anything.

        The maps, when they are asked for: what the queries, "fused", read of each modality, summing to 1 over all.
        """
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        context, mask = torch.cat(list(tokens.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        queries = self.queries.expand(len(context), -1, -1)
        some = anything(masks).expand(-1, queries.shape[1])
        hidden = self.norm1(queries + self.drop(self.attention(queries, context, mask)))
        fused = Features(self.norm2(hidden + self.drop(self.mlp(hidden))), some).cleared()
        if not return_attention:
            return fused
        weights = self.attention.weights(queries, context, mask)
        return fused, attention_maps(weights, some, {"fused": queries.shape[1]}, lengths(tokens))
