"""Fusion by learned queries (the Q-Former of BLIP-2, 2301.12597, fig. 2): they share with text and read the rest.

A layer, pre-norm (BERT's, in the paper, norms last):

    [q; t] = [q; t] + attention([q; t])        self-attention that queries and text tokens share
    q = q + attention(q, others)               in every `cross_every`-th layer, the first among them
    q = q + MLP_q(q),   t = t + MLP_t(t)       each with a feed-forward part of its own

Queries and text see each other in full, the mask of the paper's image-text matching. The paper has one image encoder;
here the tokens of all modalities but text stand side by side. Out come the queries, which is why the last layer has no
MLP_t. Without text the queries have the self-attention to themselves; with text alone nothing is cross-attended. A
modality that a sample lacks is not read.
"""

import torch
from torch import nn

from mmtrain.layers.attention import AttentionMaps
from mmtrain.layers.q_layer import QLayer
from mmtrain.layers.streams import Streams, anything, check_counts
from mmtrain.types import Features


class QFormer(nn.Module):
    """Learned queries with self-attention, which text shares, and cross-attention to the other modalities.

    Args:
        dims: width by modality.
        dim: width of the queries; each modality is projected to it.
        text: the modality that shares the self-attention; None for the one named text, if there is one.
        num_queries: how many there are, and so the number of fused tokens.
        depth: number of layers.
        cross_every: layers from one cross-attention to the next.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: for a `text` that is not among the modalities, no queries or no layers.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        text: str | None,
        num_queries: int,
        depth: int,
        cross_every: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_counts({"num_queries": num_queries, "depth": depth, "cross_every": cross_every})
        if text is not None and text not in dims:
            raise ValueError(f"text = {text} is not among the modalities; set it to {', '.join(sorted(dims))} or null")
        self.dim = dim
        self.sharing = [m for m in sorted(dims) if m == (text or "text")]
        self.others = [m for m in sorted(dims) if m not in self.sharing]
        self.streams = Streams(dims, dim)
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.layers = nn.ModuleList(
            QLayer(
                crossing=bool(self.others) and number % cross_every == 0,
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
        """Fuse tokens (B, T_m, D_m) of every modality into (B, num_queries, dim), valid where there is anything.

        The maps, when they are asked for: what the queries, "fused", and the text read of both in the last layer,
        summing to 1 together, and what the queries read of the others in the last layer that crosses, to 1 as well.
        """
        maps: AttentionMaps | None = {} if return_attention else None
        tokens = self.streams(features)
        masks = {m: features[m].mask for m in tokens}
        some = anything(masks)
        x = {"fused": self.queries.expand(len(some), -1, -1), **{m: tokens[m] for m in self.sharing}}
        valid = {"fused": some.expand(-1, len(self.queries)), **{m: masks[m] for m in self.sharing}}
        context = {m: tokens[m] for m in self.others}
        for layer in self.layers:
            x = layer(x, valid, context, {m: masks[m] for m in self.others}, maps)
        fused = Features(self.norm(x["fused"]), valid["fused"]).cleared()
        return fused if maps is None else (fused, maps)
