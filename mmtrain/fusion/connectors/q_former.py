"""A Q-Former: learned queries attend to themselves and to the media tokens (BLIP-2, 2301.12597, fig. 2).

A linear layer maps the queries to the width of the language model. The layers are pre-norm. Text does not share the
self-attention of the queries. This matches the paper's second stage, in which a language model reads the queries. In
contrast to `perceiver`, the queries have a separate self-attention, and only every `cross_attention_frequency`-th layer
has cross-attention.
"""

import torch
from torch import nn

from mmtrain.annotations import Depth, Fraction, PositiveInt, Size, WidthRatio
from mmtrain.layers.q_layer import QLayer
from mmtrain.layers.streams import check_counts
from mmtrain.types import Features


class QFormerConnector(nn.Module):
    """Queries with self-attention and cross-attention.

    Args:
        in_dim: width of the encoder's tokens, also the width of the queries.
        dim: width of the language model.
        num_queries: number of queries, and of output tokens.
        depth: number of layers.
        cross_attention_frequency: every `cross_attention_frequency`-th layer has cross-attention, starting with the
        first. num_heads: number of attention heads; must divide `in_dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `in_dim`.
        dropout: dropout probability on the outputs of attention and MLP.

    Raises:
        ValueError: if a count is below 1, or if `num_heads` does not divide `in_dim`.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: Size,
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
        self.queries = nn.Parameter(torch.randn(num_queries, in_dim) * 0.02)
        self.layers = nn.ModuleList(
            QLayer(
                crossing=number % cross_attention_frequency == 0,
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
        """Map tokens (B, T, in_dim), mask (B, T) to (B, num_queries, dim), valid where any token is valid."""
        tokens, mask = features.cleared()
        some = mask.any(dim=1, keepdim=True).expand(-1, len(self.queries))
        x = {"fused": self.queries.expand(len(tokens), -1, -1)}
        for layer in self.layers:
            x = layer(x, {"fused": some}, {"medium": tokens}, {"medium": mask}, None)
        return Features(self.proj(self.norm(x["fused"])), some)
