"""The audio CNN against a plain implementation on each clip alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.encoders.audio.cnn import AudioCNN

SHAPE = {
    "sample_rate": 1000,
    "num_mels": 8,
    "window_seconds": 0.032,
    "hop_seconds": 0.016,
    "mel_scale": "htk",
    "channels": [4, 6],
    "dim": 5,
    "dropout": 0.0,
}


def make_encoder(**options: object) -> AudioCNN:
    encoder = AudioCNN(**{**SHAPE, **options}).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    return encoder


def plainly(encoder: AudioCNN, sound: Tensor) -> Tensor:
    """Return the tokens (T, dim) of one clip (L,) without padding or mask."""
    frames, _ = encoder.log_mel(sound.unsqueeze(0), None)
    frames = (frames - frames.mean()) / (frames.var(correction=0) + 1e-5).sqrt()
    x = (frames * encoder.input_norm.gain + encoder.input_norm.bias).unsqueeze(1)
    for block in encoder.blocks:
        for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
            x = F.conv2d(x, conv.weight, padding=1)
            mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, correction=0, keepdim=True)
            x = (x - mean) / (variance + 1e-6).sqrt()
            x = F.gelu(x * norm.weight[:, None, None] + norm.bias[:, None, None])
        x = torch.stack([x[:, :, t : t + 2].mean(dim=2) for t in range(0, x.shape[2], 2)], dim=2)
        x = (x[..., 0::2] + x[..., 1::2]) / 2
    tokens = torch.stack([encoder.proj(x[0, :, t].flatten()) for t in range(x.shape[2])])
    return F.layer_norm(tokens, (5,), encoder.norm.weight, encoder.norm.bias, eps=1e-6)


def test_values_are_those_of_each_sound_by_itself() -> None:
    """The number of frames is both odd and even at every block."""
    encoder = make_encoder()
    lengths = [32 + 16 * (frames - 1) for frames in (13, 8, 7, 6, 3, 2, 1)] + [4]
    values = torch.randn(len(lengths), 300, dtype=torch.float64)
    tokens, mask = encoder(values, torch.arange(300) < torch.tensor(lengths)[:, None])
    assert mask.sum(dim=1).tolist() == [4, 2, 2, 2, 1, 1, 1, 1]
    for row, length in enumerate(lengths):
        expected = plainly(encoder, values[row, :length])
        torch.testing.assert_close(tokens[row, mask[row]], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": []}, r"channels is empty; set it to one entry per block, such as \[32,64,128\]"),
        ({"channels": [2, 2, 2, 2]}, "num_mels = 8 cannot be halved 4 times, .* set num_mels to 16, or remove some"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(change: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_encoder(**change)


def test_layers_are_the_first_norm_and_the_blocks() -> None:
    encoder = make_encoder()
    layers = encoder.layers()
    assert len(layers) == 1 + len(encoder.blocks)
    parts = [part for layer in layers for part in layer]
    parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    assert len(parameters) == len(set(parameters))
    top = {n.rpartition(".")[0] for n, p in encoder.named_parameters() if id(p) not in parameters}
    assert top == {"proj", "norm"}
