"""Content of a sound or video file, read by PyAV (FFmpeg): opening, durations, and errors with the file name.

`audio.py` decodes the sound of an opened file and `frames.py` its images. PyAV is imported when the first file is
opened, so runs without sound and videos do not need it.
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
from mmtrain.data.tables.sample_errors import describe_content
from mmtrain.errors import SampleError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_MICROSECONDS = 1_000_000  # unit of FFmpeg's duration of a container
_MAX_PIXELS = 100_000_000  # of an image that FFmpeg decodes to detect the content of a file


class Probe(NamedTuple):
    """Properties of a file.

    Attributes:
        seconds: duration of the video, or of the sound in a file without video.
        frames: number of images of the video; 0 without a video.
        exact: whether `frames` was counted, in the header or here, and not estimated from the frame rate.
        fps: images per second, on average; 0.0 without a video.
        height: stored height in pixels, before the rotation of a phone.
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
    """The source of a cell: a path relative to the folder, bytes, or a dict of `datasets` with one of them.

    Raises:
        SampleError: if it is neither, or a path that leads out of the folder.
    """
    content = content_of(value)
    if not isinstance(content, str | bytes):
        raise SampleError(describe_content(content), "neither a path nor the bytes of a file")
    return content if isinstance(content, bytes) else checked_path(folder, content)


def name_of(source: Path | bytes) -> str:
    """The name of a source for messages."""
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


@contextmanager
def open_media(source: Path | bytes, max_pixels: int | None = None) -> Iterator["InputContainer"]:
    """Open a sound or video file for reading. Errors of FFmpeg inside become SampleError.

    Args:
        source: a file or its bytes.
        max_pixels: FFmpeg decodes no image that is clearly larger, not even to detect the content. None if only sound
            is needed: 100 million.

    Raises:
        SampleError: if it is missing, empty, damaged, or neither sound nor video.
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
    # FFmpeg therefore opens nothing itself: it reads the file that is opened here, and no protocol is allowed.
    options = {"protocol_whitelist": "none"}
    # FFmpeg counts complete blocks, which are larger.
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
    """Raise SampleError for a file whose header has more samples (frames or pieces of sound) than bytes."""
    try:
        count = num_listed_samples(source)
    except (ValueError, OSError, zlib.error) as error:
        raise SampleError(name_of(source), f"is damaged: {error}") from error
    if count > size:
        raise SampleError(name_of(source), f"is damaged: its header lists {count} samples, but it has {size} bytes")


def video_stream(container: "InputContainer") -> "VideoStream | None":
    """The first video; the cover of an album does not count.

    Raises:
        SampleError: if FFmpeg does not know its codec.
    """
    from av.stream import Disposition

    film = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    if film is not None and film.codec_context is None:
        raise SampleError(str(container.name or "bytes"), "is damaged: no codec is known for it")
    return film


def header_seconds(container: "InputContainer", stream: "Stream") -> float | None:
    """The duration of a stream from its own header; None if only the container has one, or none."""
    if stream.duration and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Matroska stores 00:01:02.345 as a tag: the end, not the length
    tag = re.fullmatch(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d*)?)", stream.metadata.get("DURATION", ""), re.ASCII)
    if tag is not None:
        hours, minutes, seconds = tag.groups()
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start
    return None


def container_seconds(container: "InputContainer") -> float | None:
    """The duration of the complete file from its header."""
    return container.duration / _MICROSECONDS if container.duration else None


def probe(source: Path | bytes, *, max_pixels: int | None = None) -> Probe:
    """Properties of a file from its header; without a duration there (browser recordings), from all its packets.

    Raises:
        SampleError: if it cannot be read, or an image has more than max_pixels.
    """
    with open_media(source, max_pixels) as container:
        return _probe(source, container, max_pixels)[0]


@contextmanager
def probe_file(source: Path | bytes, max_pixels: int | None = None) -> Iterator[tuple["InputContainer", Probe]]:
    """Open a sound or video file at its start, as in `opened`, with its properties.

    Raises:
        SampleError: as in `opened` and `probe`.
    """
    with open_media(source, max_pixels) as container:
        result, at_end = _probe(source, container, max_pixels)
        if not at_end:
            yield container, result
            return
    with open_media(source, max_pixels) as container:
        yield container, result


def _probe(source: Path | bytes, container: "InputContainer", max_pixels: int | None) -> tuple[Probe, bool]:
    """Properties of a file, and whether it had to be read to its end."""
    film, sounds = video_stream(container), container.streams.audio
    stream: VideoStream | AudioStream
    if film is None:
        if not sounds:
            raise SampleError(name_of(source), "has neither sound nor film")
        stream = sounds[0]
    else:
        stream = film
        check_pixels(source, film.width, film.height, max_pixels)
    stated = header_seconds(container, stream) or container_seconds(container)
    fps = 0.0 if film is None else float(film.average_rate or film.guessed_rate or 25)
    counted, seconds = (0 if film is None else film.frames, stated) if stated else _walk(container, stream, fps)
    if film is None:
        return Probe(seconds, 0, True, 0.0, 0, 0, True), not stated
    frames = counted or max(1, round(seconds * fps))
    return Probe(seconds, frames, bool(counted), fps, film.height, film.width, bool(sounds)), not stated


def check_pixels(source: Path | bytes, width: int, height: int, max_pixels: int | None) -> None:
    """Raise SampleError for an image that is too large.

    The size can be unknown, which is 0, if FFmpeg was not allowed to decode the image.
    """
    if width * height == 0:
        raise SampleError(name_of(source), f"has a damaged picture, or one of far more than max_pixels = {max_pixels}")
    if max_pixels is not None and width * height > max_pixels:
        raise SampleError(name_of(source), f"{width} x {height} pixels are more than max_pixels = {max_pixels}")


def check_video_pixels(source: Path | bytes, num_frames: int, width: int, height: int, max_video_pixels: int) -> None:
    """Raise SampleError for frames with too many pixels together."""
    if num_frames * width * height > max_video_pixels:
        raise SampleError(
            name_of(source),
            f"{num_frames} frames of {width} x {height} pixels are more than max_video_pixels = {max_video_pixels}",
        )


def _walk(container: "InputContainer", stream: "VideoStream | AudioStream", fps: float) -> tuple[int, float]:
    """The number of packets and their duration in seconds, without decoding."""
    count, first, last = 0, None, 0
    for packet in container.demux(stream):
        if packet.size == 0:  # end of the stream
            continue
        count += 1
        if packet.pts is not None:
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last, packet.pts + (packet.duration or 0))
    if first is None or last <= first or stream.time_base is None:
        return count, count / fps if fps else 0.0  # bare H.264 has no timestamps
    return count, float((last - first) * stream.time_base)
