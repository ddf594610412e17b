"""Audio Spectrogram Transformer (2104.01778): patches of a log-mel spectrogram through a ViT, from scratch.

Differences from the paper: patches do not overlap. By default they span all bands, which gives 6 tokens per second.
Each clip is normalized separately, and clips may differ in length. There is no class token, because heads use the mean
of the tokens.
"""

import torch
from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, ProperFraction, Seconds, Size, WidthRatio
from mmtrain.layers.block import Block
from mmtrain.layers.log_mel import ClipNorm, LogMel, MelScale
from mmtrain.types import Features


class SpectrogramTransformer(nn.Module):
    """Log-mel frames, patches, learned positions, Transformer blocks, final norm.

    Args:
        sample_rate: sample rate of the waveform, in Hz.
        max_seconds: maximum length of the audio.
        num_mels: number of bands of the spectrogram.
        window_seconds: length of the window of a frame.
        hop_seconds: distance between consecutive frames.
        mel_scale: htk or slaney.
        patch_frames: number of frames of a patch.
        patch_mels: number of bands of a patch; must divide `num_mels`.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on the outputs of attention and MLP.
        drop_path: probability of stochastic depth in the last block; it grows linearly from 0 in the first.

    Raises:
        ValueError: if `patch_mels` does not divide `num_mels`, if `patch_frames` is below 1, or as in `LogMel`.
    """

    def __init__(
        self,
        *,
        sample_rate: Size,
        max_seconds: Seconds,
        num_mels: Size,
        window_seconds: Seconds,
        hop_seconds: Seconds,
        mel_scale: MelScale,
        patch_frames: Size,
        patch_mels: Size,
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
        drop_path: ProperFraction,
    ) -> None:
        super().__init__()
        if patch_mels < 1 or num_mels % patch_mels:
            fitting = min((p for p in range(1, num_mels + 1) if num_mels % p == 0), key=lambda p: abs(p - patch_mels))
            raise ValueError(
                f"num_mels = {num_mels} is not divisible by patch_mels = {patch_mels}; set patch_mels to {fitting}"
            )
        if patch_frames < 1:
            raise ValueError(f"patch_frames = {patch_frames} is below 1; set it to at least 1, such as 16")
        self.dim = dim
        self.max_seconds = max_seconds
        self.log_mel = LogMel(
            sample_rate=sample_rate,
            num_mels=num_mels,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            mel_scale=mel_scale,
        )
        self.max_frames = self.log_mel.num_frames(round(max_seconds * sample_rate))
        self.patch_frames = patch_frames
        self.input_norm = ClipNorm(num_mels=num_mels)
        self.patch_embed = nn.Conv2d(1, dim, (patch_frames, patch_mels), stride=(patch_frames, patch_mels))
        num_patches = -(-self.max_frames // patch_frames)
        self.pos_embed = nn.Parameter(torch.empty(1, num_patches, num_mels // patch_mels, dim))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._init()

    def _init(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as in our ViT; std 0.02 suits widths near 768
                nn.init.zeros_(module.bias)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the input norm and patches with their positions, then the blocks."""
        return [(self.input_norm, self.patch_embed, self.pos_embed), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode waveforms.

        Args:
            values: (B, L), floating point; values under a False mask are ignored.
            mask: (B, L), bool, True where a sample is valid; None if all are.

        Returns:
            tokens (B, T, dim), ordered by time, then by band; mask (B, T), True for a patch with a valid frame.

        Raises:
            ValueError: if the batch is longer than `max_seconds`.
        """
        frames, valid = self.input_norm(self.log_mel(values, mask))  # (B, frames, num_mels)
        if frames.shape[1] > self.max_frames:
            raise ValueError(
                f"audio of {frames.shape[1]} frames, but max_seconds = {self.max_seconds} gives {self.max_frames};"
                " crop it to max_seconds, or set max_seconds to its length"
            )
        spare = -frames.shape[1] % self.patch_frames
        frames = nn.functional.pad(frames, (0, 0, 0, spare))
        valid = nn.functional.pad(valid, (0, spare)).unflatten(1, (-1, self.patch_frames)).any(dim=2)
        x = self.patch_embed(frames.to(self.patch_embed.weight.dtype).unsqueeze(1)).permute(0, 2, 3, 1)
        x = x + self.pos_embed[:, : x.shape[1]]  # (B, patches of time, patches of bands, dim)
        valid = valid.repeat_interleave(x.shape[2], dim=1)
        x = x.flatten(1, 2)
        for block in self.blocks:
            x = block(x, valid)
        return Features(self.norm(x), valid)
