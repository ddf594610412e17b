"""Attention against explicit loops, and against torch's multi-head attention with the same weights."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.layers.attention import CrossAttention, SelfAttention, attend, attention_maps

MASK = torch.tensor([[True, True, True, True], [True, False, True, False], [False] * 4])


def heads(*, queries: int = 3, keys: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of 3 samples, 2 heads, width 5."""
    shapes = [(3, 2, queries, 5), (3, 2, keys, 5), (3, 2, keys, 5)]
    query, key, value = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return query, key, value


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend one query at a time, over its valid keys only."""
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
    """Return torch's attention with our weights."""
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
        assert not parameter.grad.any()  # also fails for NaN
    assert not x.grad.any()


def written_out(module: nn.Module, x: Tensor, context: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Return one sample's weights (H, Tq, Tk) and output (Tq, D), over valid context only."""
    weight, bias = (
        (module.qkv.weight, module.qkv.bias)
        if isinstance(module, SelfAttention)
        else (torch.cat([module.q.weight, module.kv.weight]), torch.cat([module.q.bias, module.kv.bias]))
    )
    (wq, wk, wv), (bq, bk, bv) = weight.chunk(3), bias.chunk(3)
    query, key, value = x @ wq.T + bq, context @ wk.T + bk, context @ wv.T + bv
    width = query.shape[1] // num_heads
    weights, mixed = [], []
    for head in (slice(start, start + width) for start in range(0, query.shape[1], width)):
        exps = (query[:, head] @ key[:, head].T / math.sqrt(width)).exp()
        weights.append(exps / exps.sum(dim=1, keepdim=True))
        mixed.append(weights[-1] @ value[:, head])
    return torch.stack(weights), torch.cat(mixed, dim=1) @ module.proj.weight.T + module.proj.bias


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_those_that_forward_mixes_values_with(kind: type[nn.Module], num_heads: int, masked: bool) -> None:
    module = kind(dim=8, num_heads=num_heads).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    inputs = (x,) if kind is SelfAttention else (torch.randn(3, 5, 8, dtype=torch.float64), x)
    mask = MASK if masked else None
    out, weights = module(*inputs, mask), module.weights(*inputs, mask)
    assert weights.shape == (3, inputs[0].shape[1], 4) and weights.dtype is torch.float64
    for row in range(3):
        valid = MASK[row] if masked else torch.ones(4, dtype=torch.bool)
        assert not weights[row][:, ~valid].any()
        if not valid.any():
            continue
        by_head, mixed = written_out(module, inputs[0][row], x[row][valid], num_heads)
        torch.testing.assert_close(out[row], mixed, rtol=0, atol=1e-12)
        torch.testing.assert_close(weights[row][:, valid], by_head.mean(dim=0), rtol=0, atol=1e-12)
        torch.testing.assert_close(weights[row].sum(dim=1), torch.ones_like(weights[row, :, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
def test_weights_of_half_precision_are_a_softmax_of_32_bits(autocast: bool) -> None:
    module = SelfAttention(dim=8, num_heads=2).to(torch.float32 if autocast else torch.bfloat16)
    x = torch.randn(3, 4, 8, dtype=module.proj.weight.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        weights = module.weights(x, MASK)
    assert weights.dtype is torch.float32
    torch.testing.assert_close(weights.sum(dim=2), torch.tensor([1.0, 1.0, 0.0])[:, None].expand(3, 4))


def test_maps_are_the_weights_cut_at_the_lengths() -> None:
    weights = torch.arange(1.0, 19.0).view(1, 3, 6)
    maps = attention_maps(weights, torch.tensor([[True, False, True]]), {"a": 2, "b": 1}, {"c": 1, "d": 5})
    assert {pair: part.shape[1:] for pair, part in maps.items()} == {
        ("a", "c"): (2, 1),
        ("a", "d"): (2, 5),
        ("b", "c"): (1, 1),
        ("b", "d"): (1, 5),
    }
    assert maps["a", "d"].tolist() == [[[2, 3, 4, 5, 6], [0] * 5]]
    assert maps["b", "c"].tolist() == [[[13]]]


@pytest.mark.parametrize(("dim", "num_heads", "advice"), [(96, 7, "6 or 8"), (8, 0, "1 or 2"), (5, 3, "1 or 5")])
def test_heads_that_do_not_divide_are_refused_with_advice(dim: int, num_heads: int, advice: str) -> None:
    for module in (SelfAttention, CrossAttention):
        with pytest.raises(ValueError, match=f"dim = {dim} .* num_heads = {num_heads}; set num_heads to {advice}"):
            module(dim=dim, num_heads=num_heads)


def test_each_query_can_have_keys_of_its_own() -> None:
    """The result equals that of each query alone; one without keys gets zeros and no gradient."""
    query, key, value = heads()
    mask = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[0, 1] = False
    out = attend(query, key, value, mask)
    alone = torch.cat([attend(query[:, :, i : i + 1], key, value, mask[:, i]) for i in range(3)], dim=2)
    torch.testing.assert_close(out, alone, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    result = torch.autograd.grad((out * weight).sum(), (query, key, value))
    wanted = torch.autograd.grad((alone * weight).sum(), (query, key, value))
    for one, other in zip(result, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert not out[0, :, 1].any() and not result[0][0, :, 1].any()
    module = CrossAttention(dim=8, num_heads=2)
    read = module(torch.randn(3, 3, 8), torch.randn(3, 4, 8), mask)
    assert not read[0, 1].any() and read[0, 0].all()
