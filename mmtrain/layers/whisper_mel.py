"""Log-mel frames of Whisper (2212.04356, section 2.2), as in its authors' code and in transformers.

Windows of 25 ms every 10 ms are centred and mirrored at both ends. Bands use Slaney's scale. The logarithm is decimal,
clipped at 8 below the maximum of the clip.
"""

import torch
from torch import Tensor, nn

from mmtrain.layers.autocast import full_precision
from mmtrain.layers.log_mel import mel_filters

WINDOW, HOP = 400, 160  # samples at 16 kHz


class WhisperMel(nn.Module):
    """Log-mel frames of audio without padding.

    Args:
        sample_rate: of the waveform, in Hz; the published weights need 16000.
        num_mels: number of bands; 80, or 128 in large-v3.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, *, sample_rate: int, num_mels: int) -> None:
        super().__init__()
        filters = mel_filters(sample_rate=sample_rate, num_fft=WINDOW, num_mels=num_mels, mel_scale="slaney")
        window = torch.hann_window(WINDOW, dtype=torch.float64, device="cpu")
        # computed from the configuration, so not saved in checkpoints
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Map waveforms (B, L) to frames (B, max(L, 400) // 160, num_mels), float32 (float64 for float64 input).

        Audio shorter than a window is padded with silence.
        """
        dtype = torch.promote_types(values.dtype, torch.float32)
        sound = nn.functional.pad(values.to(dtype), (0, max(0, WINDOW - values.shape[1])))
        with full_precision(values):
            spectrum = torch.stft(sound, WINDOW, HOP, window=self.window.to(dtype), return_complex=True)[..., :-1]
            power = spectrum.real.square() + spectrum.imag.square()  # (B, WINDOW // 2 + 1, frames)
            mels = (power.transpose(1, 2) @ self.filters.to(dtype)).clamp(min=1e-10).log10()
        loudest = mels.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mels, loudest - 8.0) + 4.0) / 4.0
