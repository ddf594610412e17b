"""Speech models of transformers: wav2vec 2.0, HuBERT, WavLM, data2vec, and the encoder of Whisper.

Papers: 2006.11477, 2106.07447, 2110.13900, 2202.03555 and 2212.04356.

Padding never affects a result here, in contrast to the library's own batches. The group norm over time of the base
models uses only valid frames. Modules without a mask (Whisper's attention, the stacked positional convolutions of
data2vec) run once per group of rows of equal length, so a batch of many lengths is slower. Whisper processes audio at
its own length, not padded to 30 seconds: attention is cheaper, and values differ from those of padded audio.
SpecAugment and layer drop are off in training, because augmentation belongs to the data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    FeatureExtractionMixin,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from mmtrain.annotations import Size
from mmtrain.layers.by_length import by_length
from mmtrain.layers.transformers_model import (
    export_transformers,
    transformers_config,
    transformers_model,
    transformers_settings,
)
from mmtrain.layers.whisper_mel import HOP, WhisperMel
from mmtrain.types import Features

WAVEFORM_TYPES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
TOKEN = 2 * HOP  # samples per Whisper token; the last token is padded with silence
# deterministic runs, and a gradient for every weight in each step
STEADY = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}


class HuggingFaceAudio(nn.Module):
    """A speech model of transformers; its last hidden states are the tokens, about 50 per second.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None if `pretrained` is set.
        sample_rate: sample rate of the waveform, in Hz.

    Raises:
        ValueError: if the checkpoint cannot be read or has another sample rate, or for an unsupported model type.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, sample_rate: Size) -> None:
        super().__init__()
        result = transformers_config(pretrained, config, model_types=(*WAVEFORM_TYPES, "whisper"))
        settings = {} if pretrained is None else _settings(pretrained)
        if settings and settings["sampling_rate"] != sample_rate:
            raise ValueError(
                f"sample_rate = {sample_rate}, but pretrained = {pretrained} needs {settings['sampling_rate']} Hz;"
                f" set data.inputs.audio.sample_rate to {settings['sampling_rate']}"
            )
        self.net: Waveforms | Whisper
        if result.model_type == "whisper":
            self.net = Whisper(transformers_model(pretrained, result), sample_rate=sample_rate)
        else:
            for name in STEADY.keys() & result.to_dict().keys():
                setattr(result, name, STEADY[name])
            # the library's extractor normalizes by default
            normalize = settings.get("do_normalize", True)
            model = transformers_model(pretrained, result)
            self.net = Waveforms(model, normalize=normalize, sample_rate=sample_rate)
        self.dim: int = result.hidden_size

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the sample rate of the weights, from preprocessor_config.json; {} without weights."""
        return {} if pretrained is None else {"sample_rate": _settings(pretrained)["sampling_rate"]}

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it, for audio without padding."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the convolutions, positions and other parts before the blocks, then the blocks."""
        return self.net.layers()

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode waveforms.

        Args:
            values: (B, L), floating point; values under a False mask are ignored.
            mask: (B, L), bool, True where a sample is valid; in each row the valid samples come first, without gaps.
                None if all are valid. At least one in the batch must be.

        Returns:
            tokens (B, T, dim), zeros under a False mask; mask (B, T), True for a token all of whose samples are valid.
            Audio too short for one token is padded with zeros and gives one token.

        Raises:
            ValueError: if audio is longer than Whisper's positions.
        """
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        return self.net(values.masked_fill(~mask, 0.0), mask).cleared()


class Waveforms(nn.Module):
    """Wav2vec 2.0 and related models, run part by part, so that each part uses only valid values.

    Args:
        model: the model of transformers.
        normalize: whether to normalize each clip to mean 0 and variance 1, as in pretraining.
        sample_rate: sample rate of the waveform, in Hz.
    """

    def __init__(self, model: PreTrainedModel, *, normalize: bool, sample_rate: int) -> None:
        super().__init__()
        config: Any = model.config
        self.model: Any = model
        self.normalize = normalize
        self.sample_rate = sample_rate
        self.group_norm = _setting(config, "feat_extract_norm", "layer") == "group"
        self.kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        # stacked positional convolutions, or a batch norm between them, propagate values of padded frames
        self.apart = config.model_type == "data2vec-audio" or _setting(config, "conv_pos_batch_norm", False)
        # this norm is part of the embedding if it precedes the blocks, and the final norm if it follows them
        self.norm_first = not _setting(config, "do_stable_layer_norm", False)

    def export(self, folder: Path) -> str:
        """Write the model, and the library's feature extractor, which normalizes the input."""
        rate = {"sampling_rate": self.sample_rate, "do_normalize": self.normalize}
        Wav2Vec2FeatureExtractor(feature_size=1, padding_value=0.0, **rate).save_pretrained(folder)
        return export_transformers(self.model, "input_values=values", folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the feature convolutions with their projection and positions, then the blocks."""
        model, encoder = self.model, self.model.encoder
        stem = (model.feature_extractor, model.feature_projection, encoder.pos_conv_embed)
        return [(*stem, encoder.layer_norm) if self.norm_first else stem, *((block,) for block in encoder.layers)]

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """Map waveforms (B, L), zeros under a False mask (B, L), to tokens (B, T, dim), mask (B, T)."""
        shortest = 1
        for kernel, stride in reversed(self.kernels):
            shortest = (shortest - 1) * stride + kernel
        values = F.pad(values, (0, max(0, shortest - values.shape[1])))
        lengths = mask.sum(dim=1)
        if self.normalize:  # as in the library's Wav2Vec2FeatureExtractor
            values = _standardized(values, _until(lengths, values.shape[1]), eps=1e-7)
        features, frames = self._features(values, torch.where(lengths > 0, lengths.clamp(min=shortest), 0))
        hidden = self.model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # HuBERT returns one value, the others two
        if self.apart:
            return by_length(hidden, frames, lambda x: self.model.encoder(x).last_hidden_state)
        attended = frames | ~frames.any(dim=1, keepdim=True)  # an empty row attends to all frames; it is zeroed later
        return Features(self.model.encoder(hidden, attention_mask=attended).last_hidden_state, frames)

    def _features(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return convolution features (B, T, C) and their mask (B, T). No valid frame depends on padding."""
        first, *others = self.model.feature_extractor.conv_layers
        x = sound.unsqueeze(1).to(first.conv.weight.dtype)
        if self.group_norm:
            x, norm = first.conv(x), first.layer_norm  # one group per channel, over time
            valid = _until(_after(lengths, self.kernels[:1]), x.shape[2]).unsqueeze(1)
            steady = _standardized(x, valid, eps=norm.eps).to(x.dtype)
            x = first.activation(steady * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1))
        else:
            x = first(x)
        for layer in others:
            x = layer(x)
        return x.transpose(1, 2), _until(_after(lengths, self.kernels), x.shape[2])


class Whisper(nn.Module):
    """Whisper's encoder on audio of any length up to its positions.

    Args:
        model: the model of transformers; its decoder is dropped.
        sample_rate: sample rate of the waveform, in Hz.
    """

    positions: Tensor

    def __init__(self, model: PreTrainedModel, *, sample_rate: int) -> None:
        super().__init__()
        config: Any = model.config
        self.sample_rate = sample_rate
        self.num_mels: int = config.num_mel_bins
        self.mel = WhisperMel(sample_rate=sample_rate, num_mels=self.num_mels)
        self.encoder: Any = cast(Any, model).encoder
        # fixed sinusoids, which the library stores as a frozen parameter
        self.register_buffer("positions", self.encoder.embed_positions.weight.detach().clone())
        del self.encoder.embed_positions

    def export(self, folder: Path) -> str:
        """Write the encoder, and the library's feature extractor: it pads to 30 seconds, which the library requires."""
        extractor = WhisperFeatureExtractor(feature_size=self.num_mels, sampling_rate=self.sample_rate)
        extractor.save_pretrained(folder)
        positions = nn.Embedding.from_pretrained(self.positions.clone())
        self.encoder.embed_positions = positions
        code = export_transformers(self.encoder, "input_features=spectrograms", folder)
        del self.encoder.embed_positions
        return code

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the convolutions, then the blocks."""
        encoder = self.encoder
        return [(encoder.conv1, encoder.conv2), *((block,) for block in encoder.layers)]

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """Map waveforms (B, L), mask (B, L) to tokens (B, T, dim), mask (B, T)."""
        return by_length(values, mask, self._encode)

    def _encode(self, sounds: Tensor) -> Tensor:
        """Map audio (N, L) without padding to (N, ceil(L / 320), dim). The library's forward requires 30 seconds."""
        encoder = self.encoder
        padded = F.pad(sounds, (0, -sounds.shape[1] % TOKEN))
        frames = self.mel(padded).transpose(1, 2).to(encoder.conv1.weight.dtype)
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(frames)))).transpose(1, 2)
        longest = len(self.positions)
        if x.shape[1] > longest:
            raise ValueError(
                f"audio of {x.shape[1]} tokens, but Whisper has positions for {longest};"
                f" set data.inputs.audio.max_seconds to {longest / 50:g} or less"
            )
        x = F.dropout(x + self.positions[: x.shape[1]], encoder.dropout, self.training)
        for block in encoder.layers:
            x = block(x, None)
        return encoder.layer_norm(x)


def _settings(pretrained: str) -> dict[str, Any]:
    return transformers_settings(pretrained, FeatureExtractionMixin.get_feature_extractor_dict)


def _setting(config: PretrainedConfig, name: str, default: Any) -> Any:
    """Return a setting that some of these models do not have."""
    return config.to_dict().get(name, default)


def _after(lengths: Tensor, kernels: list[tuple[int, int]]) -> Tensor:
    """Return the lengths of rows after convolutions without padding."""
    for kernel, stride in kernels:
        lengths = (lengths - kernel).div(stride, rounding_mode="floor").add(1).clamp(min=0)
    return lengths


def _until(lengths: Tensor, longest: int) -> Tensor:
    """Return (B, longest), True at the first `lengths` positions."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)


def _standardized(x: Tensor, valid: Tensor, *, eps: float) -> Tensor:
    """Normalize (..., T) to mean 0 and variance 1 over valid positions of each row, 0 elsewhere; float32 or wider."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~valid, 0.0)
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    centered = (x - x.sum(dim=-1, keepdim=True) / count).masked_fill(~valid, 0.0)
    return centered * torch.rsqrt(centered.square().sum(dim=-1, keepdim=True) / count + eps)
