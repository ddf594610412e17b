"""Images, sounds and videos for the benchmarks, different for each number."""

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FPS = 25


def noise(number: int, width: int, height: int) -> Image.Image:
    """Large smooth patches with small ones on top."""
    draws = np.random.default_rng(number)
    cells = [draws.integers(0, 256, (height // cell, width // cell, 3), dtype=np.uint8) for cell in (16, 4)]
    large, small = (Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC) for c in cells)
    return Image.blend(large, small, 0.3)


def write_picture(path: Path, number: int, *, width: int, height: int) -> None:
    noise(number, width, height).save(path, quality=90)


def write_sound(path: Path, number: int) -> None:
    """5 s of 44.1 kHz: a chord with hiss."""
    draws = np.random.default_rng(number)
    hertz, seconds = draws.uniform(100, 4000, (3, 1)), np.arange(5 * 44100) / 44100
    sound = 0.2 * np.sin(2 * math.pi * hertz * seconds).sum(0) + 0.02 * draws.standard_normal(len(seconds))
    frame = av.AudioFrame.from_ndarray((32767 * sound).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = 44100
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("flac", rate=44100, layout="mono")
        container.mux([*stream.encode(frame), *stream.encode(None)])


def write_film(path: Path, number: int, *, seconds: int, options: dict[str, str]) -> None:
    """320 x 240, H.264: a window that moves over an image."""
    ground = np.asarray(noise(number, 640, 480))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", **options})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for second in np.arange(seconds * FPS) / FPS:
            x, y = round(160 + 150 * math.sin(second)), round(120 + 110 * math.cos(1.3 * second))
            pixels = np.ascontiguousarray(ground[y : y + 240, x : x + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
