"""The block against torch's pre-norm encoder layer, and stochastic depth."""

import pytest
import torch
from torch import nn

from mmtrain.layers.block import Block, DropPath
from tests.batches import gradients

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


def as_torch(block: Block, *, dim: int, num_heads: int, hidden_dim: int) -> nn.TransformerEncoderLayer:
    """Return torch's layer with our weights."""
    theirs = nn.TransformerEncoderLayer(
        dim,
        num_heads,
        hidden_dim,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        layer_norm_eps=1e-6,
        dtype=torch.float64,
    )
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        **{f"linear{n}.{kind}": f"mlp.fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")},
        **{f"norm{n}.{kind}": f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")},
    }
    weights = block.state_dict()
    theirs.load_state_dict({mine: weights.pop(ours) for mine, ours in names.items()})
    assert not weights
    return theirs


def test_block_is_the_pre_norm_layer_of_torch() -> None:
    ours = Block(dim=8, num_heads=2, mlp_ratio=3.0).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = as_torch(ours, dim=8, num_heads=2, hidden_dim=24)
    x = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    out, expected = ours(x, MASK), theirs(x, src_key_padding_mask=~MASK)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weight).sum(), x, retain_graph=True)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x, retain_graph=True)
    torch.testing.assert_close(mine, reference, rtol=0, atol=1e-11)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.mlp.fc1.weight.grad, theirs.linear1.weight.grad, rtol=0, atol=1e-11)
    torch.testing.assert_close(ours.norm1.weight.grad, theirs.norm1.weight.grad, rtol=0, atol=1e-11)
    gradients(ours)


def test_layer_scale_multiplies_what_is_added() -> None:
    plain, scaled = Block(dim=8, num_heads=2), Block(dim=8, num_heads=2, layer_scale=0.5)
    scaled.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 4, 8)
    middle = x + 0.5 * plain.attn(plain.norm1(x), MASK)
    torch.testing.assert_close(scaled(x, MASK), middle + 0.5 * plain.mlp(plain.norm2(middle)))
    scaled(x, MASK).sum().backward()
    gradients(scaled)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"drop_path": 0.5}])
def test_randomness_is_for_training_only(options: dict[str, float]) -> None:
    block = Block(dim=8, num_heads=2, **options)
    x = torch.randn(16, 3, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_drop_path_skips_whole_samples_and_scales_the_others() -> None:
    x = torch.ones(20_000, 2, 3)
    out = DropPath(0.2)(x)
    kept = out[:, 0, 0] != 0
    assert torch.equal(out, torch.where(kept[:, None, None], 1 / 0.8, 0.0).expand_as(out))
    assert kept.double().mean().item() == pytest.approx(0.8, abs=5 * (0.2 * 0.8 / 20_000) ** 0.5)


def test_drop_path_of_zero_draws_nothing() -> None:
    before = torch.get_rng_state()
    x = torch.randn(4, 2)
    torch.set_rng_state(before)
    assert DropPath(0.0)(x) is x
    assert DropPath(0.9).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), before)
