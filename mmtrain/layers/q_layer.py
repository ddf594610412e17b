"""A layer of the Q-Former (2301.12597, fig. 2): queries, and text if any, attend to themselves and to the rest."""

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import AttentionMaps, SelfAttention, attention_maps
from mmtrain.layers.streams import FeedForward, Read, lengths


class QLayer(nn.Module):
    """One layer for the queries, and for the text if any.

    Args:
        crossing: whether the queries attend to the other modalities.
        text_goes_on: whether a later layer uses the text output.
        dim: width of the tokens.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
    """

    def __init__(
        self, *, crossing: bool, text_goes_on: bool, dim: int, num_heads: int, mlp_ratio: float, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim=dim, num_heads=num_heads)
        self.drop = nn.Dropout(dropout)
        self.read = Read(dim=dim, num_heads=num_heads, dropout=dropout) if crossing else None
        self.feed = FeedForward(dim=dim, mlp_ratio=mlp_ratio, dropout=dropout)
        self.feed_text = FeedForward(dim=dim, mlp_ratio=mlp_ratio, dropout=dropout) if text_goes_on else None

    def forward(
        self,
        x: dict[str, Tensor],
        masks: dict[str, Tensor],
        context: dict[str, Tensor],
        context_masks: dict[str, Tensor],
        maps: AttentionMaps | None,
    ) -> dict[str, Tensor]:
        """Map queries and text, (B, T, dim) each, to the same shapes.

        Args:
            x: queries under the name "fused", then text under its name, if any.
            masks: masks of `x`, (B, T).
            context: tokens (B, T_m, dim) by modality, without text.
            context_masks: masks of `context`, (B, T_m).
            maps: attention maps are written into it; None to skip them.
        """
        together, mask = torch.cat(list(x.values()), dim=1), torch.cat(list(masks.values()), dim=1)
        normed = self.norm(together)
        if maps is not None:
            maps.update(attention_maps(self.attn.weights(normed, mask), mask, lengths(x), lengths(x)))
        together = together + self.drop(self.attn(normed, mask))
        x = dict(zip(x, together.split(list(lengths(x).values()), dim=1), strict=True))
        queries = x.pop("fused")
        if self.read is not None:
            keys, valid = torch.cat(list(context.values()), dim=1), torch.cat(list(context_masks.values()), dim=1)
            if maps is not None:
                weights = self.read.weights(queries, keys, valid)
                maps.update(attention_maps(weights, masks["fused"], {"fused": queries.shape[1]}, lengths(context)))
            queries = queries + self.read(queries, keys, valid)
        queries = queries + self.feed(queries)
        if self.feed_text is not None:
            x = {m: text + self.feed_text(text) for m, text in x.items()}
        return {"fused": queries, **x}
