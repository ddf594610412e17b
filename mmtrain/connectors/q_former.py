"""Learned queries that read themselves and a medium (the Q-Former of BLIP-2, 2301.12597, fig. 2), then a linear map.

Pre-norm, and without the text that shares the queries' self-attention in the paper's first stage: as in its second,
where what they give is read by a language model. The queries are what differs from `perceiver`: they have attention of
their own, and read the medium in every `cross_every`-th layer alone.
"""

import torch
from torch import nn

from mmtrain.layers.q_layer import QLayer
from mmtrain.layers.streams import check_counts
from mmtrain.types import Features


class QFormerConnector(nn.Module):
    """Queries with self-attention and cross-attention.

    Args:
        in_dim: width of the encoder's tokens, and of the queries.
        dim: width of the language model.
        num_queries: how many there are.
        depth: number of layers.
        cross_every: layers from one cross-attention to the next.
        num_heads: attention heads, divides `in_dim`.
        mlp_ratio: hidden width of an MLP over `in_dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for no queries, no layers, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: int,
        num_queries: int,
        depth: int,
        cross_every: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_counts({"num_queries": num_queries, "depth": depth, "cross_every": cross_every})
        self.queries = nn.Parameter(torch.randn(num_queries, in_dim) * 0.02)
        self.layers = nn.ModuleList(
            QLayer(
                crossing=number % cross_every == 0,
                text_goes_on=False,
                dim=in_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
            )
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(in_dim)
        self.proj = nn.Linear(in_dim, dim)

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to (B, num_queries, dim), valid where there is any token."""
        tokens, mask = features.cleared()
        some = mask.any(dim=1, keepdim=True).expand(-1, len(self.queries))
        x = {"fused": self.queries.expand(len(tokens), -1, -1)}
        for layer in self.layers:
            x = layer(x, {"fused": some}, {"medium": tokens}, {"medium": mask}, None)
        return Features(self.proj(self.norm(x["fused"])), some)
