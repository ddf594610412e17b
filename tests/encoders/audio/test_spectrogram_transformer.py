"""The spectrogram Transformer against a plain implementation on each clip alone."""

import pytest
import torch
from torch import Tensor, nn

from mmtrain.encoders.audio.spectrogram_transformer import SpectrogramTransformer

SHAPE = {
    "sample_rate": 1000,
    "max_seconds": 0.5,
    "num_mels": 8,
    "window_seconds": 0.032,
    "hop_seconds": 0.016,
    "mel_scale": "htk",
    "patch_frames": 3,
    "patch_mels": 4,
    "dim": 8,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "dropout": 0.0,
    "drop_path": 0.0,
}


def make_encoder(**options: float) -> SpectrogramTransformer:
    encoder = SpectrogramTransformer(**{**SHAPE, **options}).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def plainly(encoder: SpectrogramTransformer, sound: Tensor) -> Tensor:
    """Return the tokens (T, dim) of one clip (L,): patches cut by loops, attention by torch's layer."""
    frames, _ = encoder.log_mel(sound.unsqueeze(0), None)
    frames = (frames[0] - frames.mean()) / (frames.var(correction=0) + 1e-5).sqrt()
    frames = frames * encoder.input_norm.gain + encoder.input_norm.bias
    tokens = []
    for time, start in enumerate(range(0, len(frames), 3)):
        for band in range(2):
            patch = torch.zeros(3, 4, dtype=torch.float64)
            part = frames[start : start + 3, 4 * band : 4 * band + 4]
            patch[: len(part)] = part
            value = (encoder.patch_embed.weight[:, 0] * patch).sum(dim=(1, 2)) + encoder.patch_embed.bias
            tokens.append(value + encoder.pos_embed[0, time, band])
    x = torch.stack(tokens).unsqueeze(0)
    for block in encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
        )
        ours = [*block.norm1.parameters(), *block.attn.parameters(), *block.mlp.parameters(), *block.norm2.parameters()]
        attention = [*layer.norm1.parameters(), *layer.self_attn.parameters()]
        theirs = [*attention, *layer.linear1.parameters(), *layer.linear2.parameters(), *layer.norm2.parameters()]
        with torch.no_grad():
            for mine, copy in zip(ours, theirs, strict=True):
                copy.copy_(mine)
        x = layer(x)
    return nn.functional.layer_norm(x[0], (8,), encoder.norm.weight, encoder.norm.bias, eps=1e-6)


def test_values_are_those_of_each_sound_by_itself() -> None:
    encoder = make_encoder()
    lengths = [500, 260, 90, 5]
    values = torch.randn(4, 500, dtype=torch.float64)
    tokens, mask = encoder(values, torch.arange(500) < torch.tensor(lengths)[:, None])
    assert mask.sum(dim=1).tolist() == [2 * 10, 2 * 5, 2 * 2, 2]
    for row, length in enumerate(lengths):
        expected = plainly(encoder, values[row, :length])
        torch.testing.assert_close(tokens[row, mask[row]], expected, rtol=0, atol=1e-11)


def test_the_longest_sound_fits_and_a_longer_one_is_refused() -> None:
    encoder = make_encoder()
    assert encoder(torch.randn(1, 500), None).tokens.shape == (1, 20, 8)
    message = "audio of 36 frames, but max_seconds = 0.5 gives 30; crop it to max_seconds, or set max_seconds to"
    with pytest.raises(ValueError, match=message):
        encoder(torch.randn(1, 600), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_mels": 3}, "num_mels = 8 is not divisible by patch_mels = 3; set patch_mels to 2"),
        ({"patch_mels": 0}, "num_mels = 8 is not divisible by patch_mels = 0; set patch_mels to 1"),
        ({"patch_frames": 0}, "patch_frames = 0 is below 1; set it to at least 1"),
        ({"num_heads": 3}, "dim = 8 is not divisible by num_heads = 3"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_encoder(**change)


def test_stochastic_depth_grows_with_depth() -> None:
    assert [b.drop_path.rate for b in make_encoder(drop_path=0.3, depth=3).blocks] == pytest.approx([0.0, 0.15, 0.3])


def test_a_steady_tone_survives_the_normalisation() -> None:
    """It is equal in every frame, so subtracting a mean per band would erase it."""
    encoder = make_encoder()
    nn.init.ones_(encoder.input_norm.gain)
    nn.init.zeros_(encoder.input_norm.bias)
    time = torch.arange(500, dtype=torch.float64) / 1000
    tones = torch.stack([torch.sin(2 * torch.pi * pitch * time) for pitch in (60, 120, 300)])
    frames = encoder.input_norm(encoder.log_mel(tones, None)).tokens
    loudest = frames.mean(dim=1).argmax(dim=1).tolist()
    assert loudest == sorted(set(loudest))
    assert (frames.amax(dim=2) > 1.0).all()


def test_layers_are_patches_and_blocks() -> None:
    encoder = make_encoder()
    layers = encoder.layers()
    assert len(layers) == 1 + len(encoder.blocks)
    parts = [part for layer in layers for part in layer]
    parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    assert len(parameters) == len(set(parameters))
    top = {n.rpartition(".")[0] for n, p in encoder.named_parameters() if id(p) not in parameters}
    assert top == {"norm"}
