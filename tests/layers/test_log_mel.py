"""The log-mel spectrogram against its formula in plain loops and against that of transformers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import audio_utils

from mmtrain.layers.log_mel import FLOOR, ClipNorm, LogMel
from mmtrain.types import Features

RATE = 8000
SHAPE = {"sample_rate": RATE, "num_mels": 20, "window_seconds": 0.03, "hop_seconds": 0.0125}
WINDOW, HOP, FFT = 240, 100, 256
both_scales = pytest.mark.parametrize("scale", ["htk", "slaney"])


def sounds(*lengths: int, longest: int = 1000) -> tuple[Tensor, Tensor]:
    values = torch.randn(len(lengths), longest, dtype=torch.float64)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return values.masked_fill(~mask, 0.0), mask


def by_the_book(sound: list[float], scale: str) -> list[list[float]]:
    """Return the log power in each band of each window of one clip."""

    def mel(hertz: float) -> float:
        if scale == "htk":  # The HTK Book, eq. 5.13
            return 2595 * math.log10(1 + hertz / 700)
        if hertz < 1000:  # Slaney, Auditory Toolbox, 1998: 200/3 Hz per step, above 1 kHz 27 steps for a factor of 6.4
            return hertz * 3 / 200
        return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def hertz(wanted: float) -> float:
        """Invert by bisection, independent of the implementation."""
        low, high = 0.0, RATE / 2
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if mel(middle) < wanted else (low, middle)
        return low

    edges = [hertz(mel(RATE / 2) * i / 21) for i in range(22)]
    frames = []
    for start in range(0, len(sound) - WINDOW + 1, HOP):
        piece = [sound[start + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / WINDOW)) for n in range(WINDOW)]
        turns = np.exp(-2j * np.pi * np.outer(np.arange(FFT // 2 + 1), np.arange(WINDOW)) / FFT)
        power = np.abs(turns @ np.array(piece)) ** 2
        bands = []
        for low, center, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            total = 0.0
            for k in range(FFT // 2 + 1):
                at = k * RATE / FFT
                height = (at - low) / (center - low) if at <= center else (high - at) / (high - center)
                if low < at < high:
                    total += height * power[k]
            bands.append(math.log(max(total * (2 / (high - low) if scale == "slaney" else 1), FLOOR)))
        frames.append(bands)
    return frames


@both_scales
def test_values_are_those_of_the_formula(scale: str) -> None:
    values, _ = sounds(700, longest=700)
    tokens, mask = LogMel(mel_scale=scale, **SHAPE)(values, None)
    expected = torch.tensor(by_the_book(values[0].tolist(), scale), dtype=torch.float64)
    assert mask.all() and tokens.shape == (1, 5, 20)
    torch.testing.assert_close(tokens[0], expected, rtol=0, atol=1e-5)


@both_scales
def test_values_are_those_of_transformers_for_each_sound_without_padding(scale: str) -> None:
    lengths = (1000, 640, 639, 240)
    values, mask = sounds(*lengths)
    layer = LogMel(mel_scale=scale, **SHAPE)
    tokens, valid = layer(values, mask)
    assert valid.sum(dim=1).tolist() == [8, 5, 4, 1] == [layer.num_frames(length) for length in lengths]
    for row, length in enumerate(lengths):
        expected = audio_utils.spectrogram(
            values[row, :length].numpy(),
            audio_utils.window_function(WINDOW, "hann"),
            WINDOW,
            HOP,
            FFT,
            power=2.0,
            center=False,
            mel_filters=layer.filters.double().numpy(),
            mel_floor=FLOOR,
            log_mel="log",
        )
        torch.testing.assert_close(tokens[row, valid[row]], torch.from_numpy(expected.T).double(), rtol=0, atol=1e-4)


def test_a_sound_shorter_than_a_window_is_one_frame_and_silence_is_none() -> None:
    values, mask = sounds(100, 1, 0)
    layer = LogMel(mel_scale="htk", **SHAPE)
    tokens, valid = layer(values, mask)
    assert valid.sum(dim=1).tolist() == [1, 1, 0] and valid[:2, 0].all()
    alone = layer(values[:1, :100], None)
    assert alone.tokens.shape == (1, 1, 20) and alone.mask.all()
    torch.testing.assert_close(alone.tokens[0], tokens[0, :1], rtol=0, atol=1e-12)
    padded = layer(torch.nn.functional.pad(values[:1, :100], (0, 140)), None)
    torch.testing.assert_close(alone.tokens, padded.tokens, rtol=0, atol=1e-12)
    assert not tokens[~valid].any()


def test_a_gap_inside_takes_the_frames_that_touch_it() -> None:
    values, mask = sounds(1000)
    mask[0, 350] = False
    _, valid = LogMel(mel_scale="htk", **SHAPE)(values, mask)
    assert valid[0].tolist() == [not start <= 350 < start + WINDOW for start in range(0, 800, HOP)]


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_what_stands_under_a_false_mask_changes_no_bit(garbage: float) -> None:
    values, mask = sounds(900, 333, 20, 0)
    layer = LogMel(mel_scale="htk", **SHAPE)
    clean, dirty = layer(values, mask), layer(values.masked_fill(~mask, garbage), mask)
    assert torch.equal(clean.tokens, dirty.tokens) and torch.equal(clean.mask, dirty.mask)


def test_it_stays_in_32_bits() -> None:
    values, mask = sounds(500)
    layer = LogMel(mel_scale="htk", **SHAPE)
    expected = layer(values.float(), mask).tokens
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(values.float(), mask).tokens, expected)
    assert layer(values.bfloat16(), mask).tokens.dtype is torch.float32
    assert expected.dtype is torch.float32 and layer.state_dict() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mel_scale": "bark"}, "mel_scale = bark; set it to htk or slaney"),
        ({"hop_seconds": 0.0}, "hop_seconds = 0.0 is less than one sample at sample_rate = 8000 Hz; .* least 0.00013"),
        ({"window_seconds": 1e-5}, "window_seconds = 1e-05 is less than one sample"),
        ({"num_mels": 100}, "num_mels = 100 is too many .* 31.2 Hz apart; set num_mels to (\\d+) or less"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel(**{**SHAPE, "mel_scale": "htk", **change})


def test_the_advice_on_bands_is_good() -> None:
    with pytest.raises(ValueError, match="set num_mels to") as raised:
        LogMel(**{**SHAPE, "mel_scale": "htk", "num_mels": 100})
    advised = int(str(raised.value).partition("set num_mels to ")[2].split()[0])
    LogMel(**{**SHAPE, "mel_scale": "htk", "num_mels": advised})
    assert 30 < advised < 100


# --------------------------------------------------------------- normalization


def test_each_sound_is_normalised_by_what_is_valid_of_it() -> None:
    norm = ClipNorm(num_mels=3).double()
    tokens = 5 + 3 * torch.randn(3, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    dirty = tokens.masked_fill(~mask.unsqueeze(-1), math.nan)
    out = norm(Features(dirty, mask)).tokens
    for row in range(2):
        mine = tokens[row, mask[row]]
        expected = (mine - mine.mean()) / (mine.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(out[row, mask[row]], expected, rtol=0, atol=1e-12)
    assert not out[~mask].any()


def test_a_gain_and_a_bias_a_band_are_learned() -> None:
    norm = ClipNorm(num_mels=3).double()
    features = Features(torch.randn(2, 4, 3, dtype=torch.float64), torch.ones(2, 4, dtype=torch.bool))
    plain = norm(features).tokens
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    torch.testing.assert_close(norm(features).tokens, plain * norm.gain + norm.bias)


def test_a_louder_recording_is_the_same_sound() -> None:
    """A silent clip stays finite."""
    values, mask = sounds(800, 500)
    layer, norm = LogMel(mel_scale="htk", **SHAPE), ClipNorm(num_mels=20).double()
    quiet, loud = norm(layer(values, mask)), norm(layer(10 * values, mask))
    torch.testing.assert_close(quiet.tokens, loud.tokens, rtol=0, atol=1e-9)
    assert not norm(layer(torch.zeros_like(values), mask)).tokens.any()
