"""Multi-head attention over masked tokens, on `scaled_dot_product_attention`.

Unusual here: a query that has no valid key at all (its sample lacks the modality) gets zeros, never NaN, and no
gradient flows through it. Attention weights are not dropped: that would take torch's slow path, whose memory grows with
the square of the length; blocks drop what attention gives instead.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention (1706.03762, eq. 1) with a key mask.

    Args:
        query: (B, H, Tq, D).
        key: (B, H, Tk, D).
        value: (B, H, Tk, D). Must be finite under a False mask: a weight of zero times NaN is NaN.
        mask: (B, Tk), bool, True where a key is valid; None when all are.

    Returns:
        (B, H, Tq, D); zeros for a sample without a valid key.
    """
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    some = mask.any(dim=1)
    keys = (mask | ~some.unsqueeze(1))[:, None, None, :]  # without a valid key: attend anywhere, cleared below
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    return out.masked_fill(~some[:, None, None, None], 0.0)


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
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = attend(query, key, value, mask)
        return self.proj(out.transpose(1, 2).flatten(2))


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
        """Map (B, Tq, D) to (B, Tq, D), reading `context` (B, Tk, C) where `mask` (B, Tk) is True.

        A sample without a valid context token gets zeros, also without the output bias: nothing was read.
        """
        query = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = self.proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        if mask is None:
            return out
        return out.masked_fill(~mask.any(dim=1)[:, None, None], 0.0)


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
