"""Log-mel spectrograms of waveforms of different lengths, and their normalization.

Windows are not centred, and only windows inside the audio give frames, so no frame depends on the padding of the batch.
Audio shorter than a window is padded with zeros and gives one frame.
"""

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from mmtrain.layers.autocast import full_precision
from mmtrain.types import Features

FLOOR = 1e-7  # smallest power: about the rounding error of 16-bit audio in a window
MelScale = Literal["htk", "slaney"]
SCALES: tuple[MelScale, ...] = get_args(MelScale)


class LogMel(nn.Module):
    """Natural logarithm of the power in bands of equal width on the mel scale, from 0 Hz to half the sample rate.

    The steps are a Hann window, an FFT whose size is the next power of two, and triangular filters. `htk` is the scale
    of the HTK book, with triangles of height 1. `slaney` is the scale of the Auditory Toolbox (linear up to 1 kHz),
    with triangles of equal area, as in librosa.

    Args:
        sample_rate: of the waveform, in Hz.
        num_mels: number of bands.
        window_seconds: length of a window.
        hop_seconds: distance between the starts of consecutive windows.
        mel_scale: htk or slaney.

    Raises:
        ValueError: for an unknown scale, a window or hop below one sample, or so many bands that one is empty.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self, *, sample_rate: int, num_mels: int, window_seconds: float, hop_seconds: float, mel_scale: MelScale
    ) -> None:
        super().__init__()
        self.window_length = round(window_seconds * sample_rate)
        self.hop_length = round(hop_seconds * sample_rate)
        for name, seconds, length in (
            ("window_seconds", window_seconds, self.window_length),
            ("hop_seconds", hop_seconds, self.hop_length),
        ):
            if length < 1:
                raise ValueError(
                    f"{name} = {seconds} is less than one sample at sample_rate = {sample_rate} Hz;"
                    f" set {name} to at least {1 / sample_rate:.2g}"
                )
        self.num_fft = 2 ** math.ceil(math.log2(max(self.window_length, 2)))
        filters = mel_filters(sample_rate=sample_rate, num_fft=self.num_fft, num_mels=num_mels, mel_scale=mel_scale)
        if _has_empty(filters):
            fewer = (
                mel_filters(sample_rate=sample_rate, num_fft=self.num_fft, num_mels=n, mel_scale=mel_scale)
                for n in range(num_mels - 1, 0, -1)
            )
            fitting = next((f.shape[1] for f in fewer if not _has_empty(f)), 1)
            raise ValueError(
                f"num_mels = {num_mels} is too many for window_seconds = {window_seconds}: a band lies between two"
                f" frequencies of the FFT, which are {sample_rate / self.num_fft:.1f} Hz apart;"
                f" set num_mels to {fitting} or less, or window_seconds to {2 * window_seconds:g}"
            )
        window = torch.hann_window(self.window_length, dtype=torch.float64, device="cpu")
        # computed from the configuration, so not saved in checkpoints
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for a number of samples."""
        return 1 + max(0, num_samples - self.window_length) // self.hop_length

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Map waveforms to log-mel frames in float32 (float64 for a float64 waveform), also under autocast.

        Args:
            values: (B, L), floating point; values under a False mask are ignored.
            mask: (B, L), bool, True where a sample is valid; None if all samples are valid.

        Returns:
            tokens (B, T, num_mels), zeros under a False mask; mask (B, T).
        """
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        dtype = torch.promote_types(values.dtype, torch.float32)
        short = max(0, self.window_length - values.shape[1])
        sound = nn.functional.pad(values.masked_fill(~mask, 0.0).to(dtype), (0, short))
        valid = nn.functional.pad(mask, (0, short))
        pieces = sound.unfold(1, self.window_length, self.hop_length)  # (B, T, window_length)
        with full_precision(values):
            spectrum = torch.fft.rfft(pieces * self.window.to(dtype), n=self.num_fft)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, T, num_fft // 2 + 1)
            mels = (power @ self.filters.to(dtype)).clamp(min=FLOOR).log()
        return Features(mels, self._frame_mask(valid)).cleared()

    def _frame_mask(self, valid: Tensor) -> Tensor:
        """Map (B, L) to (B, T): windows without padding. If there are none, the window with the most valid samples."""
        counts = valid.unfold(1, self.window_length, self.hop_length).sum(dim=2)
        is_full = counts == self.window_length
        fullest = nn.functional.one_hot(counts.argmax(dim=1), counts.shape[1]).bool()
        return torch.where(is_full.any(dim=1, keepdim=True), is_full, fullest & (counts > 0))


def mel_filters(*, sample_rate: int, num_fft: int, num_mels: int, mel_scale: MelScale) -> Tensor:
    """Return triangular filters over the FFT frequencies, by transformers: (num_fft // 2 + 1, num_mels), float64.

    Band m rises from edge m to edge m + 1 and falls to edge m + 2. The edges are equally spaced on the mel scale.

    Raises:
        ValueError: for a scale that is neither htk nor slaney.
    """
    if mel_scale not in SCALES:
        raise ValueError(f"mel_scale = {mel_scale}; set it to {' or '.join(SCALES)}")
    norm = "slaney" if mel_scale == "slaney" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about empty bands, which LogMel refuses
        filters = mel_filter_bank(num_fft // 2 + 1, num_mels, 0.0, sample_rate / 2, sample_rate, norm, mel_scale)
    return torch.from_numpy(filters)


def _has_empty(filters: Tensor) -> bool:
    return bool((filters.amax(dim=0) == 0).any())


class ClipNorm(nn.Module):
    """Normalize each clip to mean 0 and deviation 1 over its valid frames and bands, then apply gain and bias per band.

    This removes the recording level. Padding and other clips have no influence. The statistics are not per band,
    because that would erase a constant sound, and every clip of one frame.
    """

    def __init__(self, *, num_mels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_mels))
        self.bias = nn.Parameter(torch.zeros(num_mels))

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, num_mels), mask (B, T) to the same shapes, zeros under a False mask."""
        tokens, mask = features.cleared()
        count = (mask.sum(dim=1) * tokens.shape[2]).clamp(min=1)[:, None, None]
        mean = tokens.sum(dim=(1, 2), keepdim=True) / count
        centered = Features(tokens - mean, mask).cleared().tokens
        variance = centered.square().sum(dim=(1, 2), keepdim=True) / count
        return Features(centered * torch.rsqrt(variance + 1e-5) * self.gain + self.bias, mask).cleared()
