"""Speech models of transformers: wav2vec 2.0, HuBERT, WavLM, data2vec, and the encoder of Whisper.

They are 2006.11477, 2106.07447, 2110.13900, 2202.03555 and 2212.04356.

Unusual here: padding is never seen, although the library's own batches see it. The group norm over time of the base
models takes its statistics over what is valid. What takes no mask (Whisper's attention, the stacked positional
convolutions of data2vec) runs rows of equal length together, so that a batch of many lengths costs time there. And
Whisper hears a sound as long as it is, and not 30 seconds of which the rest is silence: attention has less to read, and
values differ from those of padded sound. Time is not masked and no layer is dropped in training: augmentation belongs
to the data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor

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
TOKEN = 2 * HOP  # samples of a token of Whisper; silence fills up the last one
# a run is repeatable and every weight has a gradient in each step
STEADY = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}


class HuggingFaceAudio(nn.Module):
    """A speech model of transformers; its last hidden states are the tokens, about 50 a second.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None beside `pretrained`.
        sample_rate: of the waveform, in Hz.

    Raises:
        ValueError: for a checkpoint that cannot be read or wants another rate, and a model of another type.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, sample_rate: int) -> None:
        super().__init__()
        found = transformers_config(pretrained, config, model_types=(*WAVEFORM_TYPES, "whisper"))
        settings = {} if pretrained is None else _settings(pretrained)
        if settings and settings["sampling_rate"] != sample_rate:
            raise ValueError(
                f"sample_rate = {sample_rate}, but pretrained = {pretrained} hears {settings['sampling_rate']} Hz;"
                f" set data.inputs.audio.sample_rate to {settings['sampling_rate']}"
            )
        self.net: Waveforms | Whisper
        if found.model_type == "whisper":
            self.net = Whisper(transformers_model(pretrained, found), sample_rate=sample_rate)
        else:
            for name in STEADY.keys() & found.to_dict().keys():
                setattr(found, name, STEADY[name])
            # without a word of it the library's extractor normalises
            normalize = settings.get("do_normalize", True)
            model = transformers_model(pretrained, found)
            self.net = Waveforms(model, normalize=normalize, sample_rate=sample_rate)
        self.dim: int = found.hidden_size

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """The rate that the weights hear, from their preprocessor_config.json; {} without weights."""
        return {} if pretrained is None else {"sample_rate": _settings(pretrained)["sampling_rate"]}

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it, for sounds without padding."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Convolutions with positions and what comes before the blocks, then the blocks."""
        return self.net.layers()

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode waveforms.

        Args:
            values: (B, L), floating point; what stands under a False mask is ignored.
            mask: (B, L), bool, True where a sample is valid, those of a row without a gap from its beginning; None
                when all are. At least one of the batch is.

        Returns:
            tokens (B, T, dim), zeros under a False mask; mask (B, T), True for a token all of whose samples are valid.
            A sound too short for a token gives one all the same, filled up with zeros.

        Raises:
            ValueError: for a sound longer than Whisper's positions.
        """
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        return self.net(values.masked_fill(~mask, 0.0), mask).cleared()


class Waveforms(nn.Module):
    """Wav2vec 2.0 and its kin, part by part, so that each part sees what is valid and nothing else.

    Args:
        model: the library's.
        normalize: whether each sound is brought to mean 0 and variance 1, as the weights were trained.
        sample_rate: of the waveform, in Hz.
    """

    def __init__(self, model: PreTrainedModel, *, normalize: bool, sample_rate: int) -> None:
        super().__init__()
        config: Any = model.config
        self.model: Any = model
        self.normalize = normalize
        self.sample_rate = sample_rate
        self.group_norm = _setting(config, "feat_extract_norm", "layer") == "group"
        self.kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        # positions of several convolutions, or with a batch norm between, see what padding became
        self.apart = config.model_type == "data2vec-audio" or _setting(config, "conv_pos_batch_norm", False)
        # of norms after the blocks, this one closes the embedding; before them, it closes the model
        self.norm_first = not _setting(config, "do_stable_layer_norm", False)

    def export(self, folder: Path) -> str:
        """Write the model; its input is normalised by the library's extractor, which is written beside it."""
        rate = {"sampling_rate": self.sample_rate, "do_normalize": self.normalize}
        Wav2Vec2FeatureExtractor(feature_size=1, padding_value=0.0, **rate).save_pretrained(folder)
        return export_transformers(self.model, "input_values=values", folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Feature convolutions, their projection and positions, then the blocks."""
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
        if self.normalize:  # as the library's Wav2Vec2FeatureExtractor
            values = _standardized(values, _until(lengths, values.shape[1]), eps=1e-7)
        features, frames = self._features(values, torch.where(lengths > 0, lengths.clamp(min=shortest), 0))
        hidden = self.model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # HuBERT's gives one thing, the others' two
        if self.apart:
            return by_length(hidden, frames, lambda x: self.model.encoder(x).last_hidden_state)
        attended = frames | ~frames.any(dim=1, keepdim=True)  # a row of nothing reads anywhere; it is cleared
        return Features(self.model.encoder(hidden, attention_mask=attended).last_hidden_state, frames)

    def _features(self, sound: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The convolutions' (B, T, C) and what is valid of them (B, T); no frame that is reads padding."""
        first, *others = self.model.feature_extractor.conv_layers
        x = sound.unsqueeze(1).to(first.conv.weight.dtype)
        if self.group_norm:
            x, norm = first.conv(x), first.layer_norm  # a channel a group, over time
            valid = _until(_after(lengths, self.kernels[:1]), x.shape[2]).unsqueeze(1)
            steady = _standardized(x, valid, eps=norm.eps).to(x.dtype)
            x = first.activation(steady * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1))
        else:
            x = first(x)
        for layer in others:
            x = layer(x)
        return x.transpose(1, 2), _until(_after(lengths, self.kernels), x.shape[2])


class Whisper(nn.Module):
    """Whisper's encoder on sounds of any length up to its positions.

    Args:
        model: the library's; its decoder is dropped.
        sample_rate: of the waveform, in Hz.
    """

    positions: Tensor

    def __init__(self, model: PreTrainedModel, *, sample_rate: int) -> None:
        super().__init__()
        config: Any = model.config
        self.mel = WhisperMel(sample_rate=sample_rate, num_mels=config.num_mel_bins)
        self.encoder: Any = cast(Any, model).encoder
        # fixed waves, which the library keeps as a parameter that does not learn
        self.register_buffer("positions", self.encoder.embed_positions.weight.detach().clone())
        del self.encoder.embed_positions

    def export(self, folder: Path) -> str:
        """Write the encoder; the library's reads spectrograms of 30 seconds."""
        positions = nn.Embedding.from_pretrained(self.positions.clone())
        self.encoder.embed_positions = positions
        code = export_transformers(self.encoder, "input_features=spectrograms", folder)
        del self.encoder.embed_positions
        return code

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Convolutions, then the blocks."""
        encoder = self.encoder
        return [(encoder.conv1, encoder.conv2), *((block,) for block in encoder.layers)]

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """Map waveforms (B, L), mask (B, L) to tokens (B, T, dim), mask (B, T)."""
        return by_length(values, mask, self._encode)

    def _encode(self, sounds: Tensor) -> Tensor:
        """(N, L), valid from end to end, to (N, ceil(L / 320), dim); the library's own forward wants 30 seconds."""
        encoder = self.encoder
        whole = F.pad(sounds, (0, -sounds.shape[1] % TOKEN))
        frames = self.mel(whole).transpose(1, 2).to(encoder.conv1.weight.dtype)
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(frames)))).transpose(1, 2)
        longest = len(self.positions)
        if x.shape[1] > longest:
            raise ValueError(
                f"a sound of {x.shape[1]} tokens, but Whisper has positions for {longest};"
                f" set data.inputs.audio.max_seconds to {longest / 50:g} or less"
            )
        x = F.dropout(x + self.positions[: x.shape[1]], encoder.dropout, self.training)
        for block in encoder.layers:
            x = block(x, None)
        return encoder.layer_norm(x)


def _settings(pretrained: str) -> dict[str, Any]:
    return transformers_settings(pretrained, FeatureExtractionMixin.get_feature_extractor_dict)


def _setting(config: PretrainedConfig, name: str, default: Any) -> Any:
    """A key that not every one of these models has."""
    return config.to_dict().get(name, default)


def _after(lengths: Tensor, kernels: list[tuple[int, int]]) -> Tensor:
    """How long rows are after convolutions without padding."""
    for kernel, stride in kernels:
        lengths = (lengths - kernel).div(stride, rounding_mode="floor").add(1).clamp(min=0)
    return lengths


def _until(lengths: Tensor, longest: int) -> Tensor:
    """(B, longest), True at the first `lengths` places."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)


def _standardized(x: Tensor, valid: Tensor, *, eps: float) -> Tensor:
    """(..., T) to mean 0 and variance 1 over the valid places of each line, 0 elsewhere, in at least 32 bits."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~valid, 0.0)
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    centered = (x - x.sum(dim=-1, keepdim=True) / count).masked_fill(~valid, 0.0)
    return centered * torch.rsqrt(centered.square().sum(dim=-1, keepdim=True) / count + eps)
