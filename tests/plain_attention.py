"""Attention fusions without masks: one sample alone, from its valid tokens alone, with every sum written out."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import AttentionMaps, CrossAttention, SelfAttention
from mmtrain.layers.block import Block
from mmtrain.layers.mlp import MLP
from mmtrain.layers.streams import FeedForward, Read, Streams
from mmtrain.types import Features

DIMS = {"text": 3, "audio": 5, "image": 4}
LENGTHS = {"text": 4, "audio": 2, "image": 3}
HEADS = 2

# One sample's valid tokens (T_m, D_m) by modality that it has -> fused tokens (T, dim), maps (T_query, T_key)
Plain = Callable[[dict[str, Tensor]], tuple[Tensor, AttentionMaps]]


def make_random(fusion: nn.Module) -> None:
    """Weights in which nothing is zero, of 64 bits."""
    fusion.double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)


def assert_is(fusion: nn.Module, plain: Plain, modalities: Sequence[str]) -> None:
    """Compare tokens, maps and the gradients of every parameter and input with those of the plain formula."""
    masks = {m: torch.rand(6, LENGTHS[m]) < 0.7 for m in modalities}
    masks["text"][1] = False
    masks["image"][2] = False
    for modality, mask in masks.items():
        mask[0] = True
        mask[3] = False
        mask[4] = modality == "text"  # text alone
    tokens = {m: torch.randn(6, LENGTHS[m], DIMS[m], dtype=torch.float64, requires_grad=True) for m in modalities}
    features = {m: Features(tokens[m], masks[m]) for m in modalities}
    out, mask = fusion(features)
    again, maps = fusion(features, return_attention=True)
    assert torch.equal(again.tokens, out) and torch.equal(again.mask, mask)
    weight, total = torch.randn_like(out), out.new_zeros(())
    for row in range(6):
        available = {m: tokens[m][row][masks[m][row]] for m in modalities if masks[m][row].any()}
        expected, expected_maps = plain(available) if available else (out.new_zeros(0, out.shape[2]), {})
        torch.testing.assert_close(out[row][mask[row]], expected, rtol=0, atol=1e-11)
        total = total + (expected * weight[row][mask[row]]).sum()
        assert expected_maps.keys() <= maps.keys()
        for pair, result in maps.items():
            wanted = torch.zeros_like(result[row])
            if pair in expected_maps:
                query, key = (masks[m][row] if m in masks else torch.ones(1).bool() for m in pair)
                query, key = query.expand(wanted.shape[0]), key.expand(wanted.shape[1])
                wanted[query.outer(key)] = expected_maps[pair].flatten()
            torch.testing.assert_close(result[row], wanted, rtol=0, atol=1e-11, msg=lambda t, pair=pair: f"{pair}: {t}")
    leaves = {**tokens, **dict(fusion.named_parameters())}
    mine = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    reference = torch.autograd.grad(total, list(leaves.values()))
    for name, one, other in zip(leaves, mine, reference, strict=True):
        assert one.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def mlp(x: Tensor, module: MLP) -> Tensor:
    hidden = linear(x, module.fc1)
    return linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, module.fc2)


def softmax_mix(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(Tq, D) reads (Tk, D), head by head: what it gets (Tq, D), and the mean weights (Tq, Tk)."""
    width = query.shape[1] // HEADS
    mixed, weights = [], torch.zeros(len(query), len(key), dtype=query.dtype)
    for head in (slice(start, start + width) for start in range(0, query.shape[1], width)):
        exps = (query[:, head] @ key[:, head].T / math.sqrt(width)).exp()
        mixed.append(exps / exps.sum(dim=1, keepdim=True) @ value[:, head])
        weights = weights + exps / exps.sum(dim=1, keepdim=True) / HEADS
    return torch.cat(mixed, dim=1), weights


def attention(x: Tensor, context: Tensor, module: CrossAttention | SelfAttention) -> tuple[Tensor, Tensor]:
    if isinstance(module, SelfAttention):
        (wq, wk, wv), (bq, bk, bv) = module.qkv.weight.chunk(3), module.qkv.bias.chunk(3)
    else:
        (wq, bq), (wk, wv), (bk, bv) = (module.q.weight, module.q.bias), *(p.chunk(2) for p in module.kv.parameters())
    mixed, weights = softmax_mix(x @ wq.T + bq, context @ wk.T + bk, context @ wv.T + bv)
    return linear(mixed, module.proj), weights


def block(x: Tensor, module: Block) -> tuple[Tensor, Tensor]:
    normed = norm(x, module.norm1)
    added, weights = attention(normed, normed, module.attn)
    x = x + added
    return x + mlp(norm(x, module.norm2), module.mlp), weights


def read(x: Tensor, context: Tensor, module: Read) -> tuple[Tensor, Tensor]:
    return attention(norm(x, module.norm), norm(context, module.norm_context), module.attn)


def feed(x: Tensor, module: FeedForward) -> Tensor:
    return mlp(norm(x, module.norm), module.mlp)


def embed(tokens: dict[str, Tensor], module: Streams) -> dict[str, Tensor]:
    """In sorted order; the tokens of a missing modality are (0, dim)."""
    dim = next(iter(module.kinds.values())).shape[0]
    streams = {}
    for m in sorted(module.kinds):
        there = m in tokens
        streams[m] = (
            linear(tokens[m], module.projections[m]) + module.kinds[m] if there else torch.zeros(0, dim).double()
        )
    return streams


def cut(weights: Tensor, queries: dict[str, Tensor], keys: dict[str, Tensor]) -> AttentionMaps:
    """Maps from the weights of tokens (T, dim) by name, side by side; those without tokens are left out."""
    maps, row = {}, 0
    for query, x in queries.items():
        column = 0
        for key, y in keys.items():
            if len(x) and len(y):
                maps[query, key] = weights[row : row + len(x), column : column + len(y)].detach()
            column += len(y)
        row += len(x)
    return maps
