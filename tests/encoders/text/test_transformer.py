"""The text Transformer: padding has no effect, for any ids in it."""

import pytest
import torch
from torch import nn

from mmtrain.encoders.text.transformer import TextTransformer
from tests.batches import assert_same_bits, gradients

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
MASK = IDS > 0


def make_encoder(dropout: float = 0.0) -> TextTransformer:
    encoder = TextTransformer(
        vocab_size=10, max_length=6, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=dropout, layer_scale=None
    ).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    return encoder


def test_values_and_gradients_are_those_of_torch() -> None:
    """torch's encoder gets each text alone, without padding."""
    encoder = make_encoder()
    layers = []
    for block in encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
        )
        ours = [*block.norm1.parameters(), *block.attn.parameters()]
        ours += [*block.mlp.parameters(), *block.norm2.parameters()]
        theirs = [*layer.norm1.parameters(), *layer.self_attn.parameters()]
        theirs += [*layer.linear1.parameters(), *layer.linear2.parameters(), *layer.norm2.parameters()]
        with torch.no_grad():
            for mine, copy in zip(ours, theirs, strict=True):
                copy.copy_(mine)
        layers.append(layer)
    out, mask = encoder(IDS, MASK)
    assert torch.equal(mask, MASK)
    weight = torch.randn_like(out)
    total = out.new_zeros(())
    for row, length in enumerate(MASK.sum(dim=1)):
        if length == 0:
            continue
        x = encoder.embed.weight[IDS[row, :length]] + encoder.pos_embed[0, :length]
        x = x.unsqueeze(0)
        for layer in layers:
            x = layer(x)
        x = nn.functional.layer_norm(x[0], (8,), encoder.norm.weight, encoder.norm.bias, eps=1e-6)
        torch.testing.assert_close(out[row, :length], x, rtol=0, atol=1e-12)
        total = total + (x * weight[row, :length]).sum()
    wanted = [encoder.embed.weight, encoder.pos_embed, encoder.norm.weight]
    loss = (out * weight).masked_fill(~MASK.unsqueeze(-1), 0.0).sum()
    for mine, reference in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(total, wanted), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-11)


def test_more_padding_changes_nothing() -> None:
    encoder = make_encoder()
    padded, mask = (nn.functional.pad(tensor, (0, 1)) for tensor in (IDS, MASK))
    short, long = encoder(IDS, MASK).cleared(), encoder(padded, mask).cleared()
    torch.testing.assert_close(long.tokens[:, :5], short.tokens, rtol=0, atol=1e-12)
    assert not long.tokens[:, 5].any()


@pytest.mark.parametrize("garbage", [7, -1, 10**9])
def test_ids_under_a_false_mask_change_no_bit(garbage: int) -> None:
    results = []
    for ids in (IDS, IDS.masked_fill(~MASK, garbage)):
        encoder = make_encoder_with_seed()
        out = encoder(ids, MASK).cleared().tokens
        out.square().sum().backward()
        results.append({"out": out.detach(), **gradients(encoder)})
    assert_same_bits(*results)


def make_encoder_with_seed() -> TextTransformer:
    torch.manual_seed(1)
    return make_encoder()


def test_a_text_without_a_token_stays_finite() -> None:
    encoder = make_encoder()
    out = encoder(IDS, MASK)
    out.tokens.square().sum().backward()  # includes values under a False mask
    assert out.tokens.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder).values())


def test_without_a_mask_every_token_is_valid() -> None:
    encoder = make_encoder()
    one, other = encoder(IDS, None), encoder(IDS, torch.ones_like(MASK))
    assert torch.equal(one.tokens, other.tokens) and other.mask.all() and torch.equal(one.mask, other.mask)


def test_a_text_does_not_depend_on_its_batch() -> None:
    encoder = make_encoder(dropout=0.5).eval()
    together = encoder(IDS, MASK).tokens
    for row in range(3):
        alone = encoder(IDS[row : row + 1], MASK[row : row + 1]).tokens[0]
        torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-12)


def test_dropout_is_for_training_only() -> None:
    encoder = make_encoder(dropout=0.5)
    assert not torch.equal(encoder(IDS, MASK).tokens, encoder(IDS, MASK).tokens)
    encoder.eval()
    assert torch.equal(encoder(IDS, MASK).tokens, encoder(IDS, MASK).tokens)


def test_bfloat16_runs() -> None:
    tokens, _ = make_encoder().bfloat16()(IDS, MASK)
    assert tokens.dtype is torch.bfloat16 and tokens.isfinite().all()
