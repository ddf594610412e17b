"""Sounds and films that the tests make: tones, and frames that carry their number in stripes."""

import io
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """(L,), float64: a sine that gets louder, so that no piece is like another."""
    time = np.arange(round(seconds * rate)) / rate
    return level * (0.2 + 0.8 * time / max(seconds, 1e-9)) * np.sin(2 * np.pi * hertz * time)


def wav(*channels: np.ndarray, rate: int) -> bytes:
    """16 bits, by Python's own module."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(channels))
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((np.stack(channels, axis=1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def encoded_sound(samples: np.ndarray, rate: int, kind: str, codec: str) -> bytes:
    """One channel in a container of FFmpeg's."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def numbered(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3): eight stripes, bright where the number has a bit."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        pixels[:, bit * width // BITS : (bit + 1) * width // BITS] = 210 if number >> bit & 1 else 30
    return pixels


def number_of(pixels: Any) -> int:
    """The number of a frame (3, H, W) of any size."""
    row = np.asarray(pixels)[:, pixels.shape[1] // 2].mean(0)
    width = len(row) / BITS
    return sum(int(row[int((bit + 0.5) * width)] > 120) << bit for bit in range(BITS))


def write_film(
    path: Path,
    count: int,
    *,
    fps: int = 25,
    key_every: int = 25,
    codec: str = "libx264",
    kind: str | None = None,
    times: Sequence[int] | None = None,
    rotation: float = 0.0,
    sound: np.ndarray | None = None,
    size: tuple[int, int] = (48, 64),
    options: dict[str, str] | None = None,
) -> Path:
    """Numbered frames; `times` in milliseconds instead of a steady rate, `sound` at 16 kHz, size (H, W)."""
    tick = Fraction(1, 1000) if times else Fraction(1, fps)
    with av.open(str(path), "w", format=kind, options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = key_every
        stream.codec_context.time_base = tick
        if codec == "libx264":  # by one thread: how several share the work, and so the bytes, depends on the load
            stream.options = {
                "preset": "veryfast",
                "x264-params": f"keyint={key_every}:min-keyint=1:scenecut=0:threads=1",
            }
        if rotation:
            stream.set_display_rotation(rotation)
        voice: Any = container.add_stream("aac", rate=16000) if sound is not None else None
        if voice is not None:
            voice.layout = "mono"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            assert sound is not None
            full = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            full.sample_rate, full.pts = 16000, 0
            resampler = av.AudioResampler(voice.format, "mono", 16000, voice.codec_context.frame_size)
            for piece in [*resampler.resample(full), *resampler.resample(None)]:
                container.mux(voice.encode(piece))
            container.mux(voice.encode(None))
    return path
