"""CrossAttn against the same thing without masks: each sample by itself, with its valid tokens alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.fusion.cross_attn import CrossAttn
from mmtrain.layers.attention import CrossAttention, SelfAttention
from mmtrain.layers.block import Block
from mmtrain.types import Features

DIMS = {"text": 3, "audio": 5, "image": 4}
LENGTHS = {"text": 4, "audio": 2, "image": 3}


def attention(x: Tensor, context: Tensor, module: CrossAttention | SelfAttention, num_heads: int) -> Tensor:
    """(Tq, D) reads (Tk, D); loops over heads."""
    if isinstance(module, SelfAttention):
        query_weight, *kv_weight = module.qkv.weight.chunk(3)
        query_bias, *kv_bias = module.qkv.bias.chunk(3)
    else:
        query_weight, kv_weight = module.q.weight, module.kv.weight.chunk(2)
        query_bias, kv_bias = module.q.bias, module.kv.bias.chunk(2)
    query = x @ query_weight.T + query_bias
    key, value = (context @ w.T + b for w, b in zip(kv_weight, kv_bias, strict=True))
    width = query.shape[1] // num_heads
    heads = []
    for start in range(0, query.shape[1], width):
        q, k, v = (t[:, start : start + width] for t in (query, key, value))
        heads.append((q @ k.T / width**0.5).softmax(dim=1) @ v)
    return torch.cat(heads, dim=1) @ module.proj.weight.T + module.proj.bias


def block(x: Tensor, module: Block, num_heads: int) -> Tensor:
    normed = module.norm1(x)
    x = x + attention(normed, normed, module.attn, num_heads)
    return x + module.mlp.fc2(F.gelu(module.mlp.fc1(module.norm2(x))))


def plain(fusion: CrossAttn, tokens: dict[str, Tensor], num_heads: int) -> Tensor:
    """One sample's valid tokens (T_m, D_m) by modality -> (T, D); a modality without tokens is not in the dict."""
    names = sorted(tokens)
    x = {m: tokens[m] @ fusion.projections[m].weight.T + fusion.projections[m].bias + fusion.kinds[m] for m in names}
    for layer in fusion.layers:
        read = {}
        for m in names:
            others = [layer.norms[o](x[o]) for o in names if o != m]
            read[m] = x[m]
            if others:
                read[m] = x[m] + attention(layer.norms[m](x[m]), torch.cat(others), layer.cross[m], num_heads)
        x = {m: block(read[m], layer.blocks[m], num_heads) for m in names}
    return fusion.norm(torch.cat([x[m] for m in names]))


@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_without_masks(modalities: tuple[str, ...]) -> None:
    dims = {m: DIMS[m] for m in modalities}
    fusion = CrossAttn(dims=dims, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=0.0).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)
    masks = {m: torch.rand(6, LENGTHS[m]) < 0.7 for m in modalities}
    masks["text"][1] = False
    masks["image"][2] = False
    for mask in masks.values():
        mask[0] = True
        mask[3] = False
        mask[4] = mask is masks["text"]  # text alone
    tokens = {m: torch.randn(6, LENGTHS[m], DIMS[m], dtype=torch.float64, requires_grad=True) for m in modalities}
    out, mask = fusion({m: Features(tokens[m], masks[m]) for m in modalities})
    assert torch.equal(mask, torch.cat([masks[m] for m in sorted(modalities)], dim=1))
    weight = torch.randn_like(out)
    total = out.new_zeros(())
    for row in range(6):
        there = {m: tokens[m][row][masks[m][row]] for m in modalities if masks[m][row].any()}
        if not there:
            continue
        expected = plain(fusion, there, num_heads=2)
        torch.testing.assert_close(out[row][mask[row]], expected, rtol=0, atol=1e-12)
        total = total + (expected * weight[row][mask[row]]).sum()
    wanted = {**tokens, **dict(fusion.named_parameters())}
    mine = torch.autograd.grad((out * weight).sum(), list(wanted.values()))
    reference = torch.autograd.grad(total, list(wanted.values()))
    for name, one, other in zip(wanted, mine, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_one_modality_has_nothing_to_read_and_no_weights_for_it() -> None:
    fusion = CrossAttn(dims={"image": 4}, dim=8, depth=1, num_heads=2, mlp_ratio=2.0, dropout=0.0)
    assert not [name for name, _ in fusion.named_parameters() if "cross" in name]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 8 .* num_heads = 3; set num_heads to 2 or 4"):
        CrossAttn(dims={"image": 4}, dim=8, depth=1, num_heads=3, mlp_ratio=2.0, dropout=0.0)
