"""Whisper's frames against the feature extractor of transformers."""

import pytest
import torch
from transformers import WhisperFeatureExtractor

from mmtrain.layers.whisper_mel import WhisperMel


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("length", [401, 4000, 16000 + 77])
def test_values_are_those_of_the_library(num_mels: int, length: int) -> None:
    sounds = torch.randn(2, length) * torch.linspace(0.0, 0.5, length)
    sounds[1, length // 2 :] = 0.0  # silence is clipped at 8 below the maximum
    library = WhisperFeatureExtractor(feature_size=num_mels)
    for sound in sounds:
        expected = library(sound.numpy(), sampling_rate=16000, padding="do_not_pad", return_tensors="pt")
        ours = WhisperMel(sample_rate=16000, num_mels=num_mels)(sound.unsqueeze(0))
        torch.testing.assert_close(ours.transpose(1, 2), expected.input_features, rtol=0, atol=2e-5)
        assert ours.shape[1] == length // 160


def test_a_sound_shorter_than_a_window_gives_frames() -> None:
    mel = WhisperMel(sample_rate=16000, num_mels=80)
    assert mel(torch.randn(1, 9)).shape == (1, 2, 80)
    assert torch.equal(mel(torch.ones(1, 9)), mel(torch.cat([torch.ones(1, 9), torch.zeros(1, 391)], dim=1)))


def test_a_sound_of_16_bits_is_computed_in_32() -> None:
    mel = WhisperMel(sample_rate=16000, num_mels=80)
    sound = torch.randn(1, 2000).bfloat16()
    assert torch.equal(mel(sound), mel(sound.float())) and mel(sound.double()).dtype is torch.float64
