"""Multi-head attention over masked tokens, on `scaled_dot_product_attention`.

Unusual here: a query that has no valid key at all (its sample lacks the modality) gets zeros, never NaN, and no
gradient flows through it. Attention weights are not dropped: that would take torch's slow path, whose memory grows with
the square of the length; blocks drop what attention gives instead. The fast path does not give the weights either:
`weights` computes them once more, for whoever wants to look at them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.precision import full_precision

AttentionMaps = dict[tuple[str, str], Tensor]  # by (query, key): (B, T_query, T_key)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention (1706.03762, eq. 1) with a key mask.

    Args:
        query: (B, H, Tq, D).
        key: (B, H, Tk, D).
        value: (B, H, Tk, D). Must be finite under a False mask: a weight of zero times NaN is NaN.
        mask: (B, Tk), bool, True where a key is valid, or (B, Tq, Tk), for each query; None when all are.

    Returns:
        (B, H, Tq, D); zeros for a sample, or a query, without a valid key.
    """
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    mask = mask if mask.ndim == 3 else mask.unsqueeze(1)
    some = mask.any(dim=2, keepdim=True)
    keys = (mask | ~some).unsqueeze(1)  # without a valid key: attend anywhere, cleared below
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    return out.masked_fill(~some.unsqueeze(1), 0.0)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """The weights by which `attend` mixes values, averaged over heads.

    Args:
        query: (B, H, Tq, D).
        key: (B, H, Tk, D).
        mask: (B, Tk), bool, True where a key is valid; None when all are.

    Returns:
        (B, Tq, Tk), 32 bits or more; zeros for invalid keys and for a sample without a valid key.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    with full_precision(query):
        scores = query.to(dtype) @ key.to(dtype).transpose(2, 3) / query.shape[-1] ** 0.5
        if mask is None:
            return scores.softmax(dim=-1).mean(dim=1)
        keys = mask | ~mask.any(dim=1, keepdim=True)
        weights = scores.masked_fill(~keys[:, None, None, :], -torch.inf).softmax(dim=-1).mean(dim=1)
    return weights.masked_fill(~mask.unsqueeze(1), 0.0)


def attention_maps(weights: Tensor, mask: Tensor, queries: Mapping[str, int], keys: Mapping[str, int]) -> AttentionMaps:
    """Cut the weights of several sequences that were read side by side into one map for each pair.

    Args:
        weights: (B, Tq, Tk).
        mask: (B, Tq), bool, True where a query is valid; the others get zeros.
        queries: length by name, in the order in which they stand; their sum is Tq.
        keys: likewise, of Tk.
    """
    rows = weights.masked_fill(~mask.unsqueeze(2), 0.0).split(list(queries.values()), dim=1)
    return {
        (query, key): part
        for query, row in zip(queries, rows, strict=True)
        for key, part in zip(keys, row.split(list(keys.values()), dim=2), strict=True)
    }


class SelfAttention(nn.Module):
    """Multi-head self-attention; parameter names as in timm (`qkv`, `proj`)."""

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `mask` (B, T) is True where a token is valid."""
        query, key, value = self._heads(x)
        out = attend(query, key, value, mask)
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token of (B, T, D) reads of each: (B, T, T), see `attention_weights`."""
        query, key, _ = self._heads(x)
        return attention_weights(query, key, mask)

    def _heads(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


class CrossAttention(nn.Module):
    """Multi-head attention in which one sequence asks and another answers."""

    def __init__(self, *, dim: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(context_dim or dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, Tq, D) to (B, Tq, D), reading `context` (B, Tk, C) where `mask` (B, Tk) or (B, Tq, Tk) is True.

        What has no valid context token gets zeros, also without the output bias: nothing was read.
        """
        query, key, value = self._heads(x, context)
        out = self.proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        if mask is None:
            return out
        some = mask.any(dim=-1, keepdim=True)  # (B, 1) or (B, Tq, 1)
        return out.masked_fill(~(some if mask.ndim == 3 else some.unsqueeze(2)), 0.0)

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token of (B, Tq, D) reads of `context` (B, Tk, C): (B, Tq, Tk), see `attention_weights`."""
        query, key, _ = self._heads(x, context)
        return attention_weights(query, key, mask)

    def _heads(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        ValueError: with the nearest numbers of heads that do.
    """
    if num_heads >= 1 and dim % num_heads == 0:
        return
    fitting = sorted((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: abs(h - num_heads))[:2]
    advice = " or ".join(map(str, sorted(fitting)))
    raise ValueError(f"dim = {dim} is not divisible by num_heads = {num_heads}; set num_heads to {advice}")
