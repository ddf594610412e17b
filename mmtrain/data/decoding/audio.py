"""Decoding of sound with PyAV: mono, at the sampling rate of a model, completely or only a segment."""

import itertools
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmtrain.data.decoding.media import container_seconds, header_seconds, name_of, open_media, probe_file, video_stream
from mmtrain.errors import SampleError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# What a codec needs before the first correct sample: 80 ms of Opus, the bit reservoir of MP3.
_PREROLL = 0.3
# The filter of the resampler has 32 samples of the lower rate. A segment is read with this much around it.
_MARGIN = 64
# A header with an exact count can still include the padding of the encoder.
_SLACK = 0.1
_UNKNOWN_SIZE = 0x7FFF0000  # size in the header of a WAV that was written to a pipe, or larger
# An estimating header can be wrong by this much. A file that continues after it is not decoded to its end.
_FACTOR, _GRACE = 4.0, 60.0
_AT_ONCE = 3600.0  # maximum seconds in memory to choose a segment of them; of longer files, only the segment
_MAX_SECONDS = 86_400.0  # maximum seconds that are decoded to find a segment of a file without timestamps
_MAX_PEAK = 2.0  # of floats that are samples in -1..1
_MAX_RATE = 3_000_000  # Hz, because the filter of the resampler grows with it


def read_audio(
    source: Path | bytes, sample_rate: int, *, start: float = 0.0, seconds: float | None = None
) -> Tensor | None:
    """Decode sound, completely or a segment, of any file that FFmpeg reads.

    A segment has the same samples as that part of the complete sound. Only it and a little around it is decoded.
    (Matroska and WebM have timestamps in milliseconds, so a segment can be off by one.)

    Args:
        source: a file or its bytes.
        sample_rate: sampling rate of the result, in Hz.
        start: start of the segment, in seconds.
        seconds: length of the segment; None for the rest of the file. At the end of the file it is shorter, or empty.

    Returns:
        (L,), float32, -1..1; None if the file has images and no sound.

    Raises:
        SampleError: if it is missing, empty, not sound or video, damaged, not finite, or shorter than its header
            reports (if the header is exact: not in Ogg and in MP3 without a header).
    """
    with open_media(source) as container:
        return _decoded(source, container, sample_rate, start, seconds, most=math.inf)


def read_piece(source: Path | bytes, sample_rate: int, *, seconds: float, place: float) -> Tensor | None:
    """Decode sound up to a length; of longer sound, a segment.

    Args:
        source: a file or its bytes.
        sample_rate: sampling rate of the result, in Hz.
        seconds: maximum length.
        place: position of the segment in longer sound, from 0 (start) to 1 (end).

    Returns:
        As in `read_audio`.

    Raises:
        SampleError: as in `read_audio`.
    """
    length = round(seconds * sample_rate)
    with probe_file(source) as (container, result):
        spare = result.seconds - seconds
        most = _FACTOR * max(seconds, result.seconds) + _GRACE
        if spare <= 0:
            complete = _decoded(source, container, sample_rate, 0.0, None, most=most)
            return None if complete is None else piece(complete, length, place)
        part = _decoded(source, container, sample_rate, place * spare, seconds, most=most)
    if part is None or len(part) == length:
        return part
    # the length in the header was an estimate, or that of the images
    true_seconds = result.seconds if result.seconds <= _AT_ONCE else _counted_seconds(source)
    with open_media(source) as container:
        if true_seconds <= _AT_ONCE:
            complete = _decoded(source, container, sample_rate, 0.0, None, most=result.seconds + _GRACE)
            return None if complete is None else piece(complete, length, place)
        start = place * max(0.0, true_seconds - seconds)
        return _decoded(source, container, sample_rate, start, seconds, most=most, seek=False)


def piece(waveform: Tensor, length: int, place: float) -> Tensor:
    """At most `length` samples of (L,); `place` as in `read_piece`."""
    start = round(place * max(0, len(waveform) - length))
    return waveform if len(waveform) <= length else waveform[start : start + length].clone()


def _decoded(
    source: Path | bytes,
    container: "InputContainer",
    sample_rate: int,
    start: float,
    seconds: float | None,
    *,
    most: float,
    seek: bool = True,
) -> Tensor | None:
    """The result of `read_audio` for a container at its start.

    Args:
        source: source of the container.
        container: at its start.
        sample_rate: as in `read_audio`.
        start: as in `read_audio`.
        seconds: as in `read_audio`.
        most: maximum seconds; a longer file is rejected. Without `seconds` all of it is in memory.
        seek: whether to seek to the start by timestamps; otherwise everything before it is decoded and discarded.
    """
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    assert stream.time_base is not None
    sought = seek and start > _PREROLL
    if sought:
        ticks = int((start - _PREROLL) / stream.time_base)
        container.seek((stream.start_time or 0) + ticks, stream=stream)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None and not sought:
        raise SampleError(name_of(source), "holds no samples")
    rate = first.sample_rate if first else sample_rate
    if rate > _MAX_RATE:
        raise SampleError(name_of(source), f"has a rate of {rate} Hz, more than {_MAX_RATE}")
    step = rate // math.gcd(rate, sample_rate)  # at these samples both rates coincide
    margin = _MARGIN * math.ceil(max(1.0, rate / sample_rate))
    begin = max(0, math.floor((start * rate - margin) / step)) * step
    at = _place(stream, first, rate) if first and sought else 0
    if sought and (first is None or at is None or at > begin):  # after the end, or the container cannot seek
        with open_media(source) as again:
            if start > _AT_ONCE:
                most = min(most, _MAX_SECONDS)
                return _decoded(source, again, sample_rate, start, seconds, most=most, seek=False)
            from_start = _decoded(
                source, again, sample_rate, 0.0, None if seconds is None else start + seconds, most=most
            )
        return None if from_start is None else from_start[round(start * sample_rate) :]
    end = math.inf if seconds is None else math.ceil((start + seconds) * rate) + margin
    assert first is not None and at is not None
    tally = _Tally(at, most * rate)
    sound = _resampled(source, tally.until(itertools.chain([first], frames), begin, end), sample_rate)
    if tally.too_long:
        promised = header_seconds(container, stream) or container_seconds(container) or 0.0
        raise SampleError(
            name_of(source), f"goes on behind {tally.at / rate:.0f} s, although its header says {promised:.2f} s"
        )
    if tally.ran_out:
        _check_length(source, container, stream, tally.at / rate, end / rate)
    if stream.codec_context.name.startswith("pcm_f"):  # unchanged floats
        check_level(sound.numpy(), name_of(source))
    skip = round(start * sample_rate) - begin * sample_rate // rate
    stop = None if seconds is None else skip + round(seconds * sample_rate)
    return mono(sound[:, skip:stop], name_of(source))


def check_level(samples: np.ndarray, name: str) -> None:
    """Reject floats that are not samples in -1..1. Resampled sound can exceed the range slightly.

    Raises:
        SampleError: with the peak and the fix; `name` is the sound.
    """
    beyond = np.count_nonzero(np.abs(samples) > 1)
    peak = float(np.abs(samples).max(initial=0))
    if peak > _MAX_PEAK or beyond > 0.01 * samples.size:
        reason = f"has floats up to {peak:g} ({beyond} of them beyond -1..1); divide them by their full scale"
        raise SampleError(name, f"{reason}, such as 32768, or store integers as int16")


def mono(sound: Tensor, name: str) -> Tensor:
    """One channel from several, (C, L) -> (L,), clipped to -1..1: the mean of those that are not silent (-40 dB).

    If channels cancel each other, as with a swapped wire of a microphone, only the loudest is used. The result can
    share the memory of the input.

    Raises:
        SampleError: if a sample is not finite; `name` is the sound.
    """
    if sound.shape[1] == 0:
        return sound.new_zeros(0)
    mix = (sound[0] if len(sound) == 1 else _mixed(sound)).clamp_(-1.0, 1.0)
    if mix.sum().isnan():
        raise SampleError(name, "has samples that are not finite")
    return mix


def _mixed(sound: Tensor) -> Tensor:
    levels = sound.square().mean(1).sqrt()
    loudest = levels.argmax()
    mix = sound[levels >= 0.01 * levels[loudest]].mean(0)
    return sound[loudest] if mix.square().mean().sqrt() < 0.1 * levels[loudest] else mix


def resample(sound: Tensor, rate: int, sample_rate: int) -> Tensor:
    """Sound (C, L), float32, at another sampling rate: (C, round(L * sample_rate / rate))."""
    from av.audio.frame import AudioFrame

    if rate == sample_rate:
        return sound
    channels = []
    for channel in sound.numpy():
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(channel[None]), format="fltp", layout="mono")
        frame.sample_rate = rate
        channels.append(_resampled(b"", [frame], sample_rate))
    return torch.cat(channels)


class _Tally:
    """Counts samples, and yields those of a segment, up to a limit."""

    def __init__(self, at: int, most: float) -> None:
        self.at = at
        self.most = most
        self.ran_out = False
        self.too_long = False

    def until(self, frames: Iterable["AudioFrame"], begin: int, end: float) -> Iterator["AudioFrame"]:
        for frame in frames:
            drop, self.at = max(0, begin - self.at), self.at + frame.samples
            if drop < frame.samples:
                yield _without(frame, drop) if drop else frame
            if self.at >= end:
                return
            if self.at > self.most:
                self.too_long = True
                return
        self.ran_out = True


def _counted_seconds(source: Path | bytes) -> float:
    """The length of the sound, by decoding all of it without keeping it."""
    with open_media(source) as container:
        seconds = 0.0
        for frame in container.decode(container.streams.audio[0]):
            seconds += frame.samples / frame.sample_rate
            if seconds > _MAX_SECONDS:
                raise SampleError(name_of(source), f"goes on behind {seconds:.0f} s, and has no times to seek by")
        return seconds


def _place(stream: "AudioStream", frame: "AudioFrame", rate: int) -> int | None:
    """The index of a frame's first sample; None if the container has no timestamps."""
    if frame.pts is None or frame.time_base is None or stream.time_base is None:
        return None
    return round((frame.pts * frame.time_base - (stream.start_time or 0) * stream.time_base) * rate)


def _without(frame: "AudioFrame", drop: int) -> "AudioFrame":
    from av.audio.frame import AudioFrame

    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    rest: Any = np.ascontiguousarray(frame.to_ndarray()[:, drop * width :])
    shorter = AudioFrame.from_ndarray(rest, format=frame.format.name, layout=frame.layout.name)
    shorter.sample_rate = frame.sample_rate
    return shorter


def _resampled(source: Path | bytes, frames: Iterable["AudioFrame"], sample_rate: int) -> Tensor:
    """All frames as (C, L), float32."""
    from av.audio.resampler import AudioResampler

    # one second at a time, because frames are short and each costs a call
    resampler = AudioResampler(format="fltp", rate=sample_rate, frame_size=sample_rate)
    pieces = []
    shape: tuple[str, str, int] | None = None
    for frame in frames:
        frame.pts = None  # samples are contiguous, even with wrong timestamps
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape not in (None, now):
            raise SampleError(name_of(source), f"changes in the middle from {shape} to {now}")
        shape = now
        pieces += [out.to_ndarray() for out in resampler.resample(frame)]
    pieces += [out.to_ndarray() for out in resampler.resample(None) if out is not None]
    if not pieces:
        return torch.zeros(1, 0)
    return torch.from_numpy(np.concatenate(pieces, axis=1).astype(np.float32, copy=False))


def _check_length(
    source: Path | bytes, container: "InputContainer", stream: "AudioStream", decoded: float, wanted: float
) -> None:
    """Raise SampleError if the file ends before the requested segment, although its header reports more."""
    promised = _exact_seconds(source, container, stream)
    if promised is not None and min(promised, wanted) - decoded > min(_SLACK, 0.2 * promised):
        raise SampleError(name_of(source), f"is cut short: {decoded:.2f} s of {promised:.2f} s")


def _exact_seconds(source: Path | bytes, container: "InputContainer", stream: "AudioStream") -> float | None:
    """The length of the sound by an exact header; None if it is an estimate from the size of the file."""
    name = container.format.name
    if name == "wav":  # FFmpeg uses the minimum of the header and the file
        return _riff_seconds(source)
    if name in ("flac", "aiff", "caf", "w64") or name.startswith("mov,"):
        return header_seconds(container, stream)
    if name == "mp3":  # with an encoder delay, the header has the number of frames
        return header_seconds(container, stream) if stream.start_time else None
    if name.startswith("matroska"):
        total_seconds = container_seconds(container) if video_stream(container) is None else None
        return header_seconds(container, stream) or total_seconds
    return None


def _riff_seconds(source: Path | bytes) -> float | None:
    """Size of the data divided by bytes per second, from the header of a WAV."""
    if isinstance(source, bytes):
        head = source[:65536]
    else:
        with source.open("rb") as file:
            head = file.read(65536)
    at, bytes_a_second = 12, 0
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        if name == b"fmt " and at + 20 <= len(head):
            bytes_a_second = struct.unpack_from("<I", head, at + 16)[0]
        if name == b"data":
            known = 0 < size < _UNKNOWN_SIZE and bytes_a_second > 0
            return size / bytes_a_second if known else None
        at += 8 + size + size % 2
    return None
