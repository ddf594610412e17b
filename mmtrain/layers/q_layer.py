"""A layer of the Q-Former (2301.12597, fig. 2): queries, and text if there is one, read themselves and the rest."""

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import AttentionMaps, SelfAttention, attention_maps
from mmtrain.layers.streams import FeedForward, Read, lengths


class QLayer(nn.Module):
    """One layer of the queries, and of the text if there is one.

    Args:
        crossing: whether the queries read the other modalities.
        text_goes_on: whether a later layer reads the text that comes out.
        dim: width of the tokens.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.
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
        """Map queries and text, (B, T, dim) each, to the same shapes; write into `maps` what was read.

        Args:
            x: queries by the name "fused", then text by its own if there is one.
            masks: theirs, (B, T).
            context: (B, T_m, dim) by modality that is not text.
            context_masks: theirs, (B, T_m).
            maps: None when they are not wanted.
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
