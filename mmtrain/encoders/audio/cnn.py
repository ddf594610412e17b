"""A convolutional network on log-mel spectrograms, after the CNN10 of PANNs (1912.10211).

Difference from the paper: LayerNorm over the channels of each position replaces batch norm, and padding is zeroed
before every convolution. So neither padding nor other clips of the batch affect a clip. The bands are flattened into
the channels at the end (PANNs averages them), because a pattern has a different meaning at another pitch.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Seconds, Size
from mmtrain.layers.log_mel import ClipNorm, LogMel, MelScale
from mmtrain.types import Features


class AudioCNN(nn.Module):
    """Log-mel frames, blocks of two convolutions that halve time and bands, a projection.

    Args:
        sample_rate: sample rate of the waveform, in Hz.
        num_mels: number of bands of the spectrogram; divisible by 2 for each block.
        window_seconds: length of the window of a frame.
        hop_seconds: distance between consecutive frames.
        mel_scale: htk or slaney.
        channels: channels of each block.
        dim: width of the tokens.
        dropout: dropout probability after each block.

    Raises:
        ValueError: if `channels` is empty, if the bands cannot be halved that often, or as in `LogMel`.
    """

    def __init__(
        self,
        *,
        sample_rate: Size,
        num_mels: Size,
        window_seconds: Seconds,
        hop_seconds: Seconds,
        mel_scale: MelScale,
        channels: Sequence[Size],
        dim: Size,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels is empty; set it to one entry per block, such as [32,64,128]")
        halvings = 2 ** len(channels)
        if num_mels % halvings:
            raise ValueError(
                f"num_mels = {num_mels} cannot be halved {len(channels)} times, once for each of channels;"
                f" set num_mels to {-(-num_mels // halvings) * halvings}, or remove some of channels"
            )
        self.dim = dim
        self.log_mel = LogMel(
            sample_rate=sample_rate,
            num_mels=num_mels,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            mel_scale=mel_scale,
        )
        self.input_norm = ClipNorm(num_mels=num_mels)
        widths = [1, *channels]
        self.blocks = nn.ModuleList(
            ConvBlock(in_channels=before, channels=after, dropout=dropout) for before, after in pairwise(widths)
        )
        self.proj = nn.Linear(widths[-1] * (num_mels // halvings), dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the input norm, then the blocks."""
        return [(self.input_norm,), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode waveforms.

        Args:
            values: (B, L), floating point; values under a False mask are ignored.
            mask: (B, L), bool, True where a sample is valid; None if all are.

        Returns:
            tokens (B, T, dim), one per 2 ** len(channels) frames; mask (B, T), True for tokens with a valid frame.
        """
        frames, valid = self.input_norm(self.log_mel(values, mask))
        x = frames.to(self.proj.weight.dtype).unsqueeze(1)  # (B, 1, frames, num_mels)
        for block in self.blocks:
            x, valid = block(x, valid)
        x = x.permute(0, 2, 1, 3).flatten(2)  # (B, channels, T, bands) -> (B, T, channels * bands)
        return Features(self.norm(self.proj(x)), valid)


class ConvBlock(nn.Module):
    """Convolution, norm and GELU, twice; then the mean over pairs of frames and of bands."""

    def __init__(self, *, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = ChannelNorm(channels)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, T, M), mask (B, T) to (B, channels, ceil(T / 2), M / 2), mask (B, ceil(T / 2))."""
        x = self.act(self.norm1(self.conv1(_cleared(x, mask))))
        x = _cleared(self.act(self.norm2(self.conv2(_cleared(x, mask)))), mask)
        odd = x.shape[2] % 2
        x = nn.functional.pad(x, (0, 0, 0, odd))
        pairs = nn.functional.pad(mask, (0, odd)).unflatten(1, (-1, 2)).sum(dim=2)
        # the mean over the valid frames
        x = nn.functional.avg_pool2d(x, 2) * (2.0 / pairs.clamp(min=1).to(x.dtype))[:, None, :, None]
        return self.drop(x), pairs > 0


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of (B, C, T, M)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, T, M) to (B, C, T, M)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _cleared(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0.0)
