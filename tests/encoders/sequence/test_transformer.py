"""The sequence Transformer against torch's, one sequence at a time."""

import pytest
import torch
from torch import nn

from mmtrain.encoders.sequence.transformer import SequenceTransformer

LENGTHS = [6, 4, 1]


def make_encoder() -> SequenceTransformer:
    encoder = SequenceTransformer(
        in_dim=3, max_length=7, dim=8, depth=2, num_heads=2, mlp_ratio=2.0, dropout=0.0
    ).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    return encoder


def test_values_are_those_of_torch() -> None:
    encoder = make_encoder()
    values = torch.randn(3, 6, 3, dtype=torch.float64)
    tokens, _ = encoder(values, torch.arange(6) < torch.tensor(LENGTHS)[:, None])
    for row, length in enumerate(LENGTHS):
        x = values[row, :length] @ encoder.proj.weight.T + encoder.proj.bias + encoder.pos_embed[0, :length]
        x = x.unsqueeze(0)
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
            x = layer(x)
        x = nn.functional.layer_norm(x[0], (8,), encoder.norm.weight, encoder.norm.bias, eps=1e-6)
        torch.testing.assert_close(tokens[row, :length], x, rtol=0, atol=1e-11)


def test_a_sequence_that_is_too_long_is_refused_with_advice() -> None:
    encoder = make_encoder()
    assert encoder(torch.randn(1, 7, 3).double(), None).tokens.shape == (1, 7, 8)
    message = "a sequence has 8 frames, but max_length = 7; crop it to 7, or set max_length to 8"
    with pytest.raises(ValueError, match=message):
        encoder(torch.randn(1, 8, 3).double(), None)
