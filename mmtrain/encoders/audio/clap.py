"""The audio tower of a pretrained CLAP (2211.06687, 2206.04769), with its projection into the shared space."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, FeatureExtractionMixin

from mmtrain.annotations import Size
from mmtrain.layers.autocast import full_precision
from mmtrain.layers.foreign_model import stem_and_blocks
from mmtrain.layers.map_tokens import map_tokens
from mmtrain.layers.pair_projection import SharedSpace
from mmtrain.layers.transformers_model import transformers_settings
from mmtrain.layers.transformers_pair import load_tower, pair_config, shared_space
from mmtrain.types import Features

_FLOOR = 1e-10  # of power, in the library's decibels


class CLAPAudio(nn.Module):
    """The audio tower of a pair; the cells of its last feature map are the tokens.

    A clip is repeated and padded with zeros to the length of the pretraining, as the feature extractor of the weights
    does. A longer clip is cut by the input: `max_seconds`. The library takes random parts of it, also in evaluation.

    Args:
        pretrained: a folder or a name on the hub, with the complete pair; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None if `pretrained` is set.
        sample_rate: of the waveform, in Hz.

    Attributes:
        complete_config: configuration of the complete pair.
        extractor: the library's feature extractor.
        projection: maps `Features` to vectors in the shared space; None if no task reads them.

    Raises:
        ValueError: if the checkpoint cannot be read or is not a pair with audio, or for another sample rate.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, sample_rate: Size) -> None:
        super().__init__()
        complete: Any = pair_config(pretrained, config, modality="audio")
        tower = load_tower(pretrained, complete, modality="audio")
        if pretrained is None:
            self.extractor = ClapFeatureExtractor(
                feature_size=complete.audio_config.num_mel_bins,
                sampling_rate=sample_rate,
                frequency_max=min(14000, sample_rate // 2),
                truncation="fusion" if complete.audio_config.enable_fusion else "rand_trunc",
            )
        else:
            self.extractor = ClapFeatureExtractor(**_settings(pretrained))
        if self.extractor.sampling_rate != sample_rate:
            raise ValueError(
                f"sample_rate = {sample_rate}, but pretrained = {pretrained} needs {self.extractor.sampling_rate} Hz;"
                f" set data.inputs.audio.sample_rate to {self.extractor.sampling_rate}"
            )
        self.net: Any = tower.model
        self.dim: int = complete.audio_config.hidden_size
        self.projection = tower.projection
        self.complete_config = complete
        of_fusion = self.extractor.truncation == "fusion"
        filters = self.extractor.mel_filters if of_fusion else self.extractor.mel_filters_slaney
        self.num_copies = 4 if of_fusion else 1
        self._filters = torch.from_numpy(filters).double()  # no buffer: the module may be cast to 16 bits

    @property
    def library_model(self) -> Any:
        """The tower as its library has it, without the modules of the projection."""
        return self.net

    @classmethod
    def shared_space(cls, *, pretrained: str | None, config: Mapping[str, Any] | None) -> SharedSpace:
        """Return the width of the shared space and the loss of the pair; no weights are read."""
        return shared_space(pair_config(pretrained, config, modality="audio"))

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the sample rate and the length of the weights, from preprocessor_config.json; {} without weights."""
        if pretrained is None:
            return {}
        pair_config(pretrained, None, modality="audio")
        settings = _settings(pretrained)
        return {"sample_rate": settings["sampling_rate"], "max_seconds": float(settings["max_length_s"])}

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embedding of patches, then the stages."""
        return stem_and_blocks(self.net)

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode waveforms.

        Args:
            values: (B, L), floating point; values under a False mask are ignored.
            mask: (B, L), bool, True where a sample is valid; in each row the valid samples come first. None if all are.

        Returns:
            tokens (B, T, dim), and mask (B, T): all valid, unless a row has no sample.
        """
        lengths = [values.shape[1]] * len(values) if mask is None else mask.sum(dim=1).tolist()
        clips = torch.stack([self._fit(row[:length]) for row, length in zip(values, lengths, strict=True)])
        mels = self._mels(clips).to(self.net.audio_encoder.norm.weight.dtype)
        longer = torch.zeros(len(mels), 1, dtype=torch.bool, device=mels.device)
        hidden = self.net(input_features=mels, is_longer=longer).last_hidden_state
        tokens = map_tokens(hidden)
        there = torch.tensor([length > 0 for length in lengths], device=tokens.device)
        return Features(tokens, there.unsqueeze(1).expand(tokens.shape[:2]))

    def _fit(self, clip: Tensor) -> Tensor:
        """Repeat and pad a clip (L,) to the samples of the pretraining, or cut it."""
        wanted, padding = int(self.extractor.nb_max_samples), self.extractor.padding
        clip = clip[:wanted] if len(clip) else clip.new_zeros(1)
        repeats = wanted // len(clip)
        if padding == "repeat" and len(clip) < wanted:
            clip = clip.repeat(repeats + 1)[:wanted]
        elif padding == "repeatpad":
            clip = clip.repeat(max(1, repeats))
        return nn.functional.pad(clip, (0, wanted - len(clip)))

    @torch.no_grad()
    def _mels(self, clips: Tensor) -> Tensor:
        """Map clips (B, L) to spectrograms in decibels (B, copies, frames, bands), computed in float64."""
        size, hop = int(self.extractor.fft_window_size), int(self.extractor.hop_length)
        window = torch.hann_window(size, dtype=torch.float64, device=clips.device)
        with full_precision(clips):
            spectrum = torch.stft(clips.double(), size, hop, window=window, return_complex=True, pad_mode="reflect")
            power = spectrum.real.square() + spectrum.imag.square()
            mels = power.transpose(1, 2) @ self._filters.to(clips.device)
            decibels = 10.0 * mels.clamp(min=_FLOOR).log10()
        return decibels.float().unsqueeze(1).expand(-1, self.num_copies, -1, -1)


def _settings(pretrained: str) -> dict[str, Any]:
    settings = transformers_settings(pretrained, FeatureExtractionMixin.get_feature_extractor_dict)
    known = ClapFeatureExtractor().to_dict()
    return {key: settings.get(key, value) for key, value in known.items() if key != "feature_extractor_type"}
