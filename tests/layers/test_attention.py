"""Attention against loops written out, and against torch's own multi-head attention with the same weights."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.layers.attention import CrossAttention, SelfAttention, attend

MASK = torch.tensor([[True, True, True, True], [True, False, True, False], [False] * 4])


def heads(*, queries: int = 3, keys: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of 3 samples, 2 heads, width 5."""
    shapes = [(3, 2, queries, 5), (3, 2, keys, 5), (3, 2, keys, 5)]
    query, key, value = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return query, key, value


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """One query at a time, over its valid keys alone."""
    out = torch.zeros_like(query)
    for b, h, i in ((b, h, i) for b in range(3) for h in range(2) for i in range(query.shape[2])):
        valid = [j for j in range(key.shape[2]) if mask is None or mask[b, j]]
        if not valid:
            continue
        scores = [(query[b, h, i] * key[b, h, j]).sum() / math.sqrt(query.shape[-1]) for j in valid]
        weights = [score.exp() for score in scores]
        mixed = sum(w * value[b, h, j] for w, j in zip(weights, valid, strict=True)) / sum(weights)
        out[b, h, i] = out[b, h, i] + mixed
    return out


@pytest.mark.parametrize("mask", [None, MASK])
def test_attend_is_the_softmax_over_valid_keys(mask: Tensor | None) -> None:
    inputs = heads()
    out, expected = attend(*inputs, mask), plain(*inputs, mask)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad((out * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_query_without_a_key_gives_zeros_and_no_gradient() -> None:
    inputs = heads()
    out = attend(*inputs, MASK)
    assert torch.equal(out[2], torch.zeros_like(out[2]))
    for gradient in torch.autograd.grad(out.sum(), inputs):
        assert gradient.isfinite().all()
        assert not gradient[2].any()


def test_what_stands_under_a_false_mask_changes_no_bit() -> None:
    query, key, value = heads()
    hidden = ~MASK[:, None, :, None]
    clean = attend(query, key, value, MASK)
    loud = attend(query, key.masked_fill(hidden, 1e30), value.masked_fill(hidden, -1e30), MASK)
    assert torch.equal(clean, loud)
    for one, other in zip(*(torch.autograd.grad(o.sum(), (query, key, value)) for o in (clean, loud)), strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()


def as_torch(module: nn.Module, *, dim: int, num_heads: int, context_dim: int | None = None) -> nn.MultiheadAttention:
    """torch's attention with the weights of ours."""
    theirs = nn.MultiheadAttention(
        dim, num_heads, batch_first=True, kdim=context_dim, vdim=context_dim, dtype=torch.float64
    )
    with torch.no_grad():
        if isinstance(module, SelfAttention):
            query, key, value = module.qkv.weight.chunk(3)
            theirs.in_proj_bias.copy_(module.qkv.bias)
        else:
            query, (key, value) = module.q.weight, module.kv.weight.chunk(2)
            theirs.in_proj_bias.copy_(torch.cat([module.q.bias, module.kv.bias]))
        if context_dim in (None, dim):
            theirs.in_proj_weight.copy_(torch.cat([query, key, value]))
        else:
            theirs.q_proj_weight.copy_(query)
            theirs.k_proj_weight.copy_(key)
            theirs.v_proj_weight.copy_(value)
        theirs.out_proj.load_state_dict(module.proj.state_dict())
    return theirs


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_self_attention_is_that_of_torch(num_heads: int) -> None:
    ours = SelfAttention(dim=8, num_heads=num_heads).double()
    nn.init.normal_(ours.qkv.bias)
    theirs = as_torch(ours, dim=8, num_heads=num_heads)
    x = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    mask = MASK[:2]
    out, expected = ours(x, mask), theirs(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weight).sum(), x, retain_graph=True)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x, retain_graph=True)
    torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.proj.bias.grad, theirs.out_proj.bias.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("context_dim", [None, 6])
def test_cross_attention_is_that_of_torch(context_dim: int | None) -> None:
    ours = CrossAttention(dim=8, num_heads=2, context_dim=context_dim).double()
    theirs = as_torch(ours, dim=8, num_heads=2, context_dim=context_dim)
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 4, context_dim or 8, dtype=torch.float64, requires_grad=True)
    out = ours(x, context, MASK[:2])
    expected = theirs(x, context, context, key_padding_mask=~MASK[:2], need_weights=False)[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    for mine, reference in zip(
        torch.autograd.grad((out * weight).sum(), (x, context)),
        torch.autograd.grad((expected * weight).sum(), (x, context)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


def test_cross_attention_without_context_gives_zeros_even_with_a_bias() -> None:
    module = CrossAttention(dim=8, num_heads=2)
    nn.init.ones_(module.proj.bias)
    x = torch.randn(3, 2, 8, requires_grad=True)
    out = module(x, torch.randn(3, 4, 8), MASK)
    assert not out[2].any()
    out[2].sum().backward()
    for parameter in module.parameters():
        assert not parameter.grad.any()  # which a NaN would fail as well
    assert not x.grad.any()


@pytest.mark.parametrize(("dim", "num_heads", "advice"), [(96, 7, "6 or 8"), (8, 0, "1 or 2"), (5, 3, "1 or 5")])
def test_heads_that_do_not_divide_are_refused_with_advice(dim: int, num_heads: int, advice: str) -> None:
    for module in (SelfAttention, CrossAttention):
        with pytest.raises(ValueError, match=f"dim = {dim} .* num_heads = {num_heads}; set num_heads to {advice}"):
            module(dim=dim, num_heads=num_heads)
