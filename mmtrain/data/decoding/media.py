"""What a sound or film file holds, read by PyAV (FFmpeg): opening, durations, and errors that name the file.

`audio.py` decodes the sound of what is opened here and `frames.py` its pictures. PyAV is imported when the first file
is opened, so that a run without sound and films does not need it.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmtrain.data.decoding.mp4_boxes import num_listed_samples
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.sample_errors import shown
from mmtrain.errors import SampleError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_MICROSECONDS = 1_000_000  # what FFmpeg gives the duration of a container in
_MAX_PIXELS = 100_000_000  # of a picture that FFmpeg decodes to find out what a file holds


class Probe(NamedTuple):
    """What a file holds.

    Attributes:
        seconds: how long the film is; of a file without one, the sound.
        frames: how many pictures the film has; 0 without a film.
        exact: whether `frames` was counted, by the header or by us, and not estimated from the rate.
        fps: pictures a second, on average; 0.0 without a film.
        height: in pixels, as stored, that is before a phone's rotation.
        width: in pixels.
        has_audio: whether there is sound.
    """

    seconds: float
    frames: int
    exact: bool
    fps: float
    height: int
    width: int
    has_audio: bool


def source_of(value: Any, folder: Path) -> Path | bytes:
    """What to open for a cell: a path relative to the folder, bytes, or a dict of `datasets` that has one of them.

    Raises:
        SampleError: when it is neither, or a path that leads out of the folder.
    """
    content = content_of(value)
    if not isinstance(content, str | bytes):
        raise SampleError(shown(content), "neither a path nor the bytes of a file")
    return content if isinstance(content, bytes) else checked_path(folder, content)


def name_of(source: Path | bytes) -> str:
    """A source in a message."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


@contextmanager
def opened(source: Path | bytes, max_pixels: int | None = None) -> Iterator["InputContainer"]:
    """A file of sound or film, open for reading; FFmpeg's errors inside become SampleError.

    Args:
        source: a file or its bytes.
        max_pixels: FFmpeg decodes no picture that is clearly larger, not even to find out what the file holds. None
            where only the sound is wanted: 100 million.

    Raises:
        SampleError: when it is missing, empty, damaged, or neither sound nor film.
    """
    import av

    name = name_of(source)
    if isinstance(source, Path) and not source.is_file():
        raise SampleError(name, "there is no such file")
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not size:
        raise SampleError(name, "is empty")
    _check_samples(source, size)
    # A playlist (m3u8, ffconcat) or a numbered name (a%d.png) would make FFmpeg open other files, here or on a server.
    # So it opens nothing by itself: it reads the file that we have opened, and no protocol is allowed.
    options = {"protocol_whitelist": "none"}
    # FFmpeg counts whole blocks, which are larger.
    options["max_pixels"] = str(2 * (_MAX_PIXELS if max_pixels is None else max_pixels) + 65536)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else io.FileIO(source)
    except OSError as error:
        raise SampleError(name, f"cannot be opened: {error.strerror}") from error
    try:
        with file, av.open(file, mode="r", options=options, metadata_errors="replace") as container:
            if not (container.streams.audio or container.streams.video) or container.format.name in ("tty", "bin"):
                raise SampleError(name, "is neither sound nor film")
            yield container
    except av.FFmpegError as error:
        raise SampleError(name, f"is damaged, cut short, or neither sound nor film: {error.strerror}") from error


def _check_samples(source: Path | bytes, size: int) -> None:
    """Raise SampleError for a file that says it holds more samples, that is frames or pieces of sound, than bytes."""
    try:
        count = num_listed_samples(source)
    except (ValueError, OSError, zlib.error) as error:
        raise SampleError(name_of(source), f"is damaged: {error}") from error
    if count > size:
        raise SampleError(name_of(source), f"is damaged: its header lists {count} samples, but it has {size} bytes")


def film_of(container: "InputContainer") -> "VideoStream | None":
    """The first film; the cover of a record is none.

    Raises:
        SampleError: when FFmpeg does not know its codec.
    """
    from av.stream import Disposition

    film = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    if film is not None and film.codec_context is None:
        raise SampleError(str(container.name or "bytes"), "is damaged: no codec is known for it")
    return film


def header_seconds(container: "InputContainer", stream: "Stream") -> float | None:
    """How long a stream is by its own header; None where only the container as a whole has a duration, or nothing."""
    if stream.duration and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Matroska keeps 00:01:02.345 as a tag: the end, not the length
    tag = re.fullmatch(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d*)?)", stream.metadata.get("DURATION", ""), re.ASCII)
    if tag is not None:
        hours, minutes, seconds = tag.groups()
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start
    return None


def container_seconds(container: "InputContainer") -> float | None:
    """How long the whole file is by its header."""
    return container.duration / _MICROSECONDS if container.duration else None


def probe(source: Path | bytes, *, max_pixels: int | None = None) -> Probe:
    """What a file holds, by its header; where that has no duration (a recording of a browser), by all its packets.

    Raises:
        SampleError: when it cannot be read, or when a picture of it has more than max_pixels.
    """
    with opened(source, max_pixels) as container:
        return _probe(source, container, max_pixels)[0]


@contextmanager
def probed(source: Path | bytes, max_pixels: int | None = None) -> Iterator[tuple["InputContainer", Probe]]:
    """A file of sound or film, open and at its beginning as by `opened`, and what it holds.

    Raises:
        SampleError: as `opened` and `probe`.
    """
    with opened(source, max_pixels) as container:
        found, at_end = _probe(source, container, max_pixels)
        if not at_end:
            yield container, found
            return
    with opened(source, max_pixels) as container:
        yield container, found


def _probe(source: Path | bytes, container: "InputContainer", max_pixels: int | None) -> tuple[Probe, bool]:
    """What a file holds, and whether it was read to its end to know."""
    film, sounds = film_of(container), container.streams.audio
    stream: VideoStream | AudioStream
    if film is None:
        if not sounds:
            raise SampleError(name_of(source), "has neither sound nor film")
        stream = sounds[0]
    else:
        stream = film
        check_pixels(source, film.width, film.height, max_pixels)
    told = header_seconds(container, stream) or container_seconds(container)
    fps = 0.0 if film is None else float(film.average_rate or film.guessed_rate or 25)
    counted, seconds = (0 if film is None else film.frames, told) if told else _walk(container, stream, fps)
    if film is None:
        return Probe(seconds, 0, True, 0.0, 0, 0, True), not told
    frames = counted or max(1, round(seconds * fps))
    return Probe(seconds, frames, bool(counted), fps, film.height, film.width, bool(sounds)), not told


def check_pixels(source: Path | bytes, width: int, height: int, max_pixels: int | None) -> None:
    """Raise SampleError for a picture that is too large.

    Of one that FFmpeg was not allowed to decode the size can be unknown, that is 0.
    """
    if width * height == 0:
        raise SampleError(name_of(source), f"has a damaged picture, or one of far more than max_pixels = {max_pixels}")
    if max_pixels is not None and width * height > max_pixels:
        raise SampleError(name_of(source), f"{width} x {height} pixels are more than max_pixels = {max_pixels}")


def check_film_pixels(source: Path | bytes, num_frames: int, width: int, height: int, max_film_pixels: int) -> None:
    """Raise SampleError for frames that have too many pixels together."""
    if num_frames * width * height > max_film_pixels:
        raise SampleError(
            name_of(source),
            f"{num_frames} frames of {width} x {height} pixels are more than max_film_pixels = {max_film_pixels}",
        )


def _walk(container: "InputContainer", stream: "VideoStream | AudioStream", fps: float) -> tuple[int, float]:
    """The number of packets and the seconds that they last, without decoding."""
    count, first, last = 0, None, 0
    for packet in container.demux(stream):
        if packet.size == 0:  # ends the stream
            continue
        count += 1
        if packet.pts is not None:
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last, packet.pts + (packet.duration or 0))
    if first is None or last <= first or stream.time_base is None:
        return count, count / fps if fps else 0.0  # bare H.264 has no times
    return count, float((last - first) * stream.time_base)
