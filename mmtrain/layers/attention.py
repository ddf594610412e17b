"""Multi-head attention over masked tokens, on `scaled_dot_product_attention`.

A query without any valid key (its sample has no such modality) gets zeros, never NaN, and no gradient flows through it.
There is no dropout on attention weights: PyTorch would use its slow path, whose memory grows with the square of the
length. Blocks apply dropout to the attention output instead. The fast path does not return the weights either; the
`weights` methods recompute them for inspection.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.layers.autocast import full_precision

AttentionMaps = dict[tuple[str, str], Tensor]  # by (query, key): (B, T_query, T_key)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention (1706.03762, eq. 1) with a key mask.

    Args:
        query: (B, H, Tq, D).
        key: (B, H, Tk, D).
        value: (B, H, Tk, D). Must be finite under a False mask, because a weight of zero times NaN is NaN.
        mask: (B, Tk), bool, True where a key is valid, or (B, Tq, Tk) per query; None if all keys are valid.

    Returns:
        (B, H, Tq, D); zeros for a sample or query without a valid key.
    """
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    mask = mask if mask.ndim == 3 else mask.unsqueeze(1)
    some = mask.any(dim=2, keepdim=True)
    keys = (mask | ~some).unsqueeze(1)  # without a valid key: attend to all keys; the result is zeroed below
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    return out.masked_fill(~some.unsqueeze(1), 0.0)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights with which `attend` averages values, averaged over heads.

    Args:
        query: (B, H, Tq, D).
        key: (B, H, Tk, D).
        mask: (B, Tk), bool, True where a key is valid; None if all keys are valid.

    Returns:
        (B, Tq, Tk), float32 or wider; zeros for invalid keys and for samples without a valid key.
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
    """Split the attention weights of concatenated sequences into one map per (query, key) pair.

    Args:
        weights: (B, Tq, Tk).
        mask: (B, Tq), bool, True where a query is valid; other queries get zeros.
        queries: length by name, in order of concatenation; the sum is Tq.
        keys: length by name, in order of concatenation; the sum is Tk.
    """
    rows = weights.masked_fill(~mask.unsqueeze(2), 0.0).split(list(queries.values()), dim=1)
    return {
        (query, key): part
        for query, row in zip(queries, rows, strict=True)
        for key, part in zip(keys, row.split(list(keys.values()), dim=2), strict=True)
    }


class SelfAttention(nn.Module):
    """Multi-head self-attention. Parameter names are those of timm (`qkv`, `proj`)."""

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
        """Return the attention weights (B, T, T) of tokens (B, T, D), see `attention_weights`."""
        query, key, _ = self._heads(x)
        return attention_weights(query, key, mask)

    def _heads(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence (queries) to another (keys and values)."""

    def __init__(self, *, dim: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(context_dim or dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, Tq, D) to (B, Tq, D), attending to `context` (B, Tk, C) where `mask` (B, Tk) or (B, Tq, Tk) is True.

        A query without a valid context token gets zeros, without the output bias.
        """
        query, key, value = self._heads(x, context)
        out = self.proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        if mask is None:
            return out
        some = mask.any(dim=-1, keepdim=True)  # (B, 1) or (B, Tq, 1)
        return out.masked_fill(~(some if mask.ndim == 3 else some.unsqueeze(2)), 0.0)

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights (B, Tq, Tk) from tokens (B, Tq, D) to `context` (B, Tk, C), see `attention_weights`."""
        query, key, _ = self._heads(x, context)
        return attention_weights(query, key, mask)

    def _heads(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value


def check_heads(dim: int, num_heads: int) -> None:
    """Check that `num_heads` divides `dim`.

    Raises:
        ValueError: with the nearest valid numbers of heads.
    """
    if num_heads >= 1 and dim % num_heads == 0:
        return
    fitting = sorted((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: abs(h - num_heads))[:2]
    advice = " or ".join(map(str, sorted(fitting)))
    raise ValueError(f"dim = {dim} is not divisible by num_heads = {num_heads}; set num_heads to {advice}")
