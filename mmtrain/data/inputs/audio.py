"""Sound: decoded by PyAV, mono waveforms at one rate.

SpecAugment (1904.08779) is done on the waveform, by a short-time Fourier transform, a mask and the way back, so that it
works for any encoder, with any spectrogram or none.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mmtrain.annotations import Fraction, NonNegativeFloat, Seconds, Size
from mmtrain.data.decoding.audio import check_level, mono, piece, read_piece, resample
from mmtrain.data.decoding.media import source_of
from mmtrain.data.decoding.numpy_file import arrays_of, is_numpy
from mmtrain.data.inputs.image import key_of
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.sample_errors import describe_content
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Padded

_MIN_RATE, _MAX_RATE = 1000, 768_000  # Hz, of samples in a table
RATE_NAMES = ("sampling_rate", "sample_rate", "rate", "sr")  # of a .npz, in Hz
_MAX_CHANNELS = 64
_MAX_SAMPLES = 1 << 27  # that resampling makes of the samples of a cell: half a GB


class AudioInput:
    """A sound column: a path relative to the table, bytes, samples, or what `datasets` gives for a sound.

    A path can be that of a .npy or .npz with samples.

    Of a film it is the sound; in the row of a silent film the modality is missing. Samples are floats in -1..1 or
    integers over the full range of their type, (L,), (C, L) or (L, C), and taken as being at `sample_rate`; a dict of
    `datasets` with "array" has its own "sampling_rate". Integers without a type are of 16 bits where they fit.

    Args:
        sample_rate: of the waveform, in Hz; what the encoder was made for.
        max_seconds: of a longer sound training takes a random piece of this length, evaluation the middle.
        noise: training adds white noise; its standard deviation is drawn from 0 to so many times the RMS of the sound.
        time_mask: training silences a span of at most this share of the length.
        freq_mask: training removes a band of at most this share of the frequencies.
    """

    kind = "audio"

    def __init__(
        self,
        *,
        sample_rate: Size,
        max_seconds: Seconds,
        noise: NonNegativeFloat,
        time_mask: Fraction,
        freq_mask: Fraction,
    ) -> None:
        if sample_rate < 1:
            raise ConfigError(f"sample_rate = {sample_rate} is not a rate in Hz; set it to 16000, say")
        if round(max_seconds * sample_rate) < 1:
            raise ConfigError(f"max_seconds = {max_seconds} leaves no sample; set it to 10, say")
        if noise < 0.0:
            raise ConfigError(f"noise = {noise} is below 0; set it to 0 for none, or to 0.1, say")
        for name, share in (("time_mask", time_mask), ("freq_mask", freq_mask)):
            if not 0.0 <= share < 1.0:
                raise ConfigError(f"{name} = {share} is not a share below 1; set it to 0 for none, or to 0.2, say")
        self.sample_rate = sample_rate
        self.max_seconds = max_seconds
        self.noise = noise
        self.time_mask = time_mask
        self.freq_mask = freq_mask

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """The waveform (L,), float32, and the key of its content; None for a silent film.

        Raises:
            SampleError: when it cannot be read, is empty, or has samples that are not finite.
        """
        draws = torch.Generator().manual_seed(seed)
        place = float(torch.rand((), generator=draws)) if train else 0.5
        content = content_of(value)
        try:
            waveform = self._waveform(content, folder, place)
        except SampleError as error:  # by the name that the table gives it
            raise SampleError(_named(content), error.reason) from error
        if waveform is None:
            return None
        if len(waveform) == 0:
            raise SampleError(_named(content), "holds no samples")
        return (self._changed(waveform, draws) if train else waveform), self.key(value)

    def key(self, value: Any) -> int:
        """The key of a cell's content."""
        content = content_of(value)
        if _is_samples(content):
            return key_of(np.ascontiguousarray(_array(content)[0]))
        return key_of(content)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Waveforms (B, L) padded with 0 to the longest, and the mask (B, L)."""
        length = max((len(v) for v in values if v is not None), default=1)
        waveforms = torch.zeros(len(values), length)
        mask = torch.zeros(len(values), length, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                waveforms[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(waveforms, mask)

    def _waveform(self, content: Any, folder: Path, place: float) -> Tensor | None:
        if not _is_samples(content):
            source = source_of(content, folder)
            if is_numpy(source):
                return self._waveform(_samples_of(source), folder, place)
            return read_piece(source, self.sample_rate, seconds=self.max_seconds, place=place)
        array, rate = _array(content)
        rate = rate or self.sample_rate
        array = _within(np.atleast_2d(array), rate, self.sample_rate, self.max_seconds, place)
        sound = resample(torch.from_numpy(array.copy()), rate, self.sample_rate)
        return piece(mono(sound, _named(content)), round(self.max_seconds * self.sample_rate), place)

    def _changed(self, waveform: Tensor, draws: torch.Generator) -> Tensor:
        if self.noise > 0:
            level = self.noise * float(torch.rand((), generator=draws)) * waveform.square().mean().sqrt()
            waveform = waveform + level * torch.randn(len(waveform), generator=draws)
        if self.time_mask > 0 or self.freq_mask > 0:
            waveform = self._masked(waveform, draws)
        return waveform

    def _masked(self, waveform: Tensor, draws: torch.Generator) -> Tensor:
        """A band and a span of the spectrogram set to zero (section 2 of the paper, F and T masks, one of each)."""
        width = 1 << max(4, round(0.032 * self.sample_rate).bit_length() - 1)  # 32 ms of 16 kHz
        window = torch.hann_window(width)
        spectrum = torch.stft(
            waveform, width, width // 4, window=window, center=True, pad_mode="constant", return_complex=True
        )
        for axis, share in ((0, self.freq_mask), (1, self.time_mask)):
            size = spectrum.shape[axis]
            length, place = torch.rand(2, generator=draws).tolist()
            masked = int(length * share * size + length)  # so that a share of 0 is none, and the most can be reached
            masked = min(masked, int(share * size))
            spectrum.narrow(axis, int(place * (size - masked + 1)), masked).zero_()
        return torch.istft(spectrum, width, width // 4, window=window, center=True, length=len(waveform))


def is_without_rate(cell: Any, folder: Path) -> bool:
    """Whether a cell contains samples, or names an array file, that have no sample rate.

    Args:
        cell: of a table.
        folder: the folder of relative paths. A file that cannot be read counts as one with a rate.
    """
    content = content_of(cell)
    if _is_samples(content):
        return not isinstance(content, Mapping)
    try:
        source = source_of(content, folder)
        return is_numpy(source) and not isinstance(_samples_of(source), Mapping)
    except SampleError:
        return False


def _samples_of(source: Path | bytes) -> Any:
    """The samples of an array file; a .npz can have their rate next to them."""
    try:
        arrays = arrays_of(source, max_elements=_MAX_SAMPLES, others=RATE_NAMES)
    except FileNotFoundError as error:
        raise SampleError(str(source), "there is no such file") from error
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        raise SampleError(describe_content(str(source)), f"is no array of samples: {error}") from error
    rates = [array for name, array in arrays.items() if name in RATE_NAMES]
    if not rates:
        return arrays["array"]
    return {"array": arrays["array"], "sampling_rate": rates[0].item() if rates[0].size == 1 else None}


def _is_samples(content: Any) -> bool:
    return isinstance(content, np.ndarray | Tensor | list | tuple) or (
        isinstance(content, Mapping) and "array" in content
    )


def _array(content: Any) -> tuple[np.ndarray, int | None]:
    """Samples (L,) or (C, L), float32, and their rate where it is known."""
    rate = _rate(content) if isinstance(content, Mapping) else None
    try:
        array = np.asarray(content["array"] if isinstance(content, Mapping) else content)
        if array.dtype.kind not in "iuf":
            array = array.astype(np.float32)  # of text, or of lists with a null
    except (ValueError, TypeError) as error:
        raise SampleError(_named(content), f"is not an array of samples: {error}") from error
    return _as_floats(_channels_first(array, _named(content)), _named(content)), rate


def _channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """(L,) or (C, L): the shorter axis is that of the channels, as soundfile and torchaudio write them."""
    if array.ndim == 2 and array.shape[0] > array.shape[1] > 0:
        array = array.T
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > _MAX_CHANNELS):
        reason = f"has samples of shape {array.shape}; give (length,), (channels, length) or (length, channels)"
        raise SampleError(name, f"{reason}, with at most {_MAX_CHANNELS} channels")
    return array


def _as_floats(array: np.ndarray, name: str) -> np.ndarray:
    """Samples in -1..1, float32.

    Raises:
        SampleError: for floats that are no samples in -1..1, and for integers whose number of bits is not known.
    """
    if array.size == 0:
        return array.astype(np.float32)
    if array.dtype.kind == "f":
        check_level(array, name)
        return array.astype(np.float32)
    low, high = int(array.min()), int(array.max())
    bits, middle = (8 * array.itemsize, 0) if array.dtype != np.int64 else _bits_of(low, high, float(array.mean()))
    if array.dtype.kind == "u":
        middle = 1 << (bits - 1)
    if bits == 64 or (bits > 16 and 0 < max(high, -low) < 1 << 23):
        reason = f"has integers from {low} to {high}, which can be of 16, 24 or 32 bits"
        raise SampleError(name, f"{reason}; store int16, or floats in -1..1")
    return ((array - float(middle)) / float(1 << (bits - 1))).astype(np.float32)


def _bits_of(low: int, high: int, mean: float) -> tuple[int, int]:
    """How many bits integers without a type have, and which is silence: unsigned ones lie around their middle."""
    for bits in (8, 16):
        middle = 1 << (bits - 1)
        if low >= 0 and high < 1 << bits and middle / 2 <= mean <= middle * 3 / 2:
            return bits, middle
        if bits == 16 and low >= -middle and high < middle:
            return bits, 0
    return (32, 0) if low >= -(1 << 31) and high < 1 << 31 else (64, 0)


def _rate(content: Mapping[str, Any]) -> int:
    """The rate of samples of a table.

    Raises:
        SampleError: when there is none, or none that sound can have.
    """
    given = content.get("sampling_rate")
    if given is None:
        raise SampleError(_named(content), "has no sampling_rate; give that of the array in Hz, such as 16000")
    try:
        rate = float(given)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not (_MIN_RATE <= rate <= _MAX_RATE and rate.is_integer()):
        reason = f"has the sampling_rate {given!r}; give an integer from {_MIN_RATE} to {_MAX_RATE} Hz"
        raise SampleError(_named(content), reason)
    return int(rate)


def _within(array: np.ndarray, rate: int, sample_rate: int, max_seconds: float, place: float) -> np.ndarray:
    """Samples (C, L) that can be resampled: of very many, those of the piece that is taken and a second around it."""
    channels, length = array.shape
    if channels * length * sample_rate <= _MAX_SAMPLES * rate:
        return array
    kept = math.ceil((max_seconds + 2) * rate)
    start = round(place * max(0, length - kept))
    return array[:, start : start + kept]


def _named(content: Any) -> str:
    return "samples of a table" if _is_samples(content) else describe_content(content)
