"""Single frames of a video, found by seeking to the key frame before each, without decoding the complete video."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmtrain.data.decoding.media import (
    Probe,
    check_pixels,
    check_video_pixels,
    header_seconds,
    name_of,
    probe_file,
    video_stream,
)
from mmtrain.errors import SampleError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# These draw each image on top of the previous one, even after a packet that is marked as a key frame.
_WHOLE = ("gif", "apng")
_PIXELS_AT_ONCE = 1 << 22  # whose transparency is removed as floats


class Frames(NamedTuple):
    """Frames of a video in the order of the requested times.

    Attributes:
        pixels: (F, 3, H, W), uint8, RGB; a view of (F, H, W, 3), the layout of the decoder.
        seconds: (F,), float64, start time of each, relative to the first frame of the video. Frames with equal times
            are the same frame.
    """

    pixels: Tensor
    seconds: Tensor


def read_frames(
    source: Path | bytes,
    times: Callable[[Probe], Sequence[float]],
    *,
    max_pixels: int,
    max_video_pixels: int,
    background: Sequence[int],
) -> Frames | None:
    """Decode the frames that are visible at given times, rotated to the orientation of the camera.

    Args:
        source: a video, an animation or an image, or its bytes.
        times: chooses F times, given the properties of the file, in seconds from the first frame; in any order. Times
            before the first frame select the first, times after the last one the last.
        max_pixels: a video with larger frames is not decoded, because it can fill the memory.
        max_video_pixels: maximum number of pixels of all chosen frames together.
        background: the colour under transparent pixels.

    Returns:
        The frames; None if the file has sound and no video.

    Raises:
        SampleError: if it is missing, empty, not sound or video, damaged, too large, or ends before one of the times
            although its header reports more.
    """
    with probe_file(source, max_pixels) as (container, film):
        stream = video_stream(container)
        if stream is None:
            return None
        chosen = times(film)
        assert len(chosen) > 0
        check_video_pixels(source, len(chosen), film.width, film.height, max_video_pixels)
        walk = _Walk(source, container, stream)
        pixels = torch.empty(0)
        places: dict[int, int] = {}  # index in `pixels`, by presentation time
        results: dict[float, int] = {}
        size: tuple[int, int] | None = None
        for second in sorted(set(chosen)):
            frame, pts = walk.to(second)
            results[second] = pts
            if pts in places:
                continue
            if frame.is_corrupt:
                raise SampleError(name_of(source), f"the frame at {second:.2f} s is damaged")
            check_pixels(source, frame.width, frame.height, max_pixels)
            if size is None:
                size = frame.width, frame.height  # streams from phones can change it
                check_video_pixels(source, len(chosen), *size, max_video_pixels)
            picture = _picture(frame, size, background)
            if not places:
                pixels = torch.empty(len(set(chosen)), *picture.shape, dtype=torch.uint8)
            pixels[len(places)] = picture
            places[pts] = len(places)
        shown = torch.tensor([walk.seconds(results[t]) for t in chosen], dtype=torch.float64)
        rows = [places[results[t]] for t in chosen]
        in_order = rows == list(range(len(rows)))
        return Frames((pixels if in_order else pixels[rows]).permute(0, 3, 1, 2), shown)


class _Walk:
    """Goes through a video from start to end, and seeks to a key frame if that saves decoding."""

    def __init__(self, source: Path | bytes, container: "InputContainer", stream: "VideoStream") -> None:
        from av.codec.context import ThreadType

        assert stream.time_base is not None
        self.source = source
        self.container = container
        self.stream = stream
        self.tick = stream.time_base
        self.origin = stream.start_time or 0
        self.promised = header_seconds(container, stream)
        # a bare stream of H.264 has no timestamps for seeking, and neither has an image
        self.seekable = stream.start_time is not None and container.format.name not in _WHOLE
        # Measured on 60 s at 640 x 480 of H.264 and MPEG-4, 16 frames: threads double the work after each seek, and the
        # loader has its own workers.
        stream.thread_type = ThreadType.NONE
        self.frames: Iterator[VideoFrame] = container.decode(stream)
        self.held: VideoFrame | None = None  # the last one that starts before the requested time
        self.ahead: VideoFrame | None = None  # the next one
        self.count = 0
        self.last_key = self.origin
        self.longest = round(1 / self.tick)  # longest known distance of key frames

    def seconds(self, pts: int) -> float:
        """A presentation time relative to the first frame."""
        return float((pts - self.origin) * self.tick)

    def to(self, second: float) -> tuple["VideoFrame", int]:
        """The frame at a time, not before the previously requested one, and its presentation time."""
        # half a millisecond of tolerance: Matroska stores the 66.67 ms of a frame as 67
        target = self.origin + math.floor(second / self.tick + min(0.5, 0.0005 / self.tick))
        if self._should_leap(target):
            self._leap(target)
        while True:
            self.ahead = self.ahead or self._next()
            if self.ahead is None or (self.held is not None and self._pts(self.ahead) > target):
                break
            self.held, self.ahead = self.ahead, None
            if self._pts(self.held) > target:  # before the first frame
                break
        if self.held is None:
            raise SampleError(name_of(self.source), "holds no frames")
        if self.ahead is None:
            self._check_end(second)
        return self.held, self._pts(self.held)

    def _next(self) -> "VideoFrame | None":
        frame = next(self.frames, None)
        if frame is None:
            return None
        if frame.pts is None:  # bare H.264
            rate = self.stream.average_rate or self.stream.guessed_rate or 25
            frame.pts = self.origin + round(self.count / rate / self.tick)
        self.count += 1
        if frame.key_frame:
            self.last_key = frame.pts
        self.longest = max(self.longest, frame.pts - self.last_key)
        return frame

    def _pts(self, frame: "VideoFrame") -> int:
        assert frame.pts is not None
        return frame.pts

    def _should_leap(self, target: int) -> bool:
        """Whether there is a key frame between here and the target; a guess if the video has no list of them."""
        if not self.seekable:
            return False
        here = self.ahead or self.held
        now = self.origin if here is None else self._pts(here)
        index = self.stream.index_entries
        if len(index) and index[-1].timestamp >= target:
            key = index.search_timestamp(target)
            return key >= 0 and index[key].timestamp > now
        return target - now > self.longest

    def _leap(self, target: int) -> None:
        """Go to a frame that is not after the target; in several attempts if the container seeks by guessing."""
        back = 0
        while True:
            aim = max(self.origin, target - back)
            self.container.seek(aim, stream=self.stream)
            self.frames = self.container.decode(self.stream)
            self.held, self.ahead = None, self._next()
            if aim == self.origin or (self.ahead is not None and self._pts(self.ahead) <= target):
                return
            back = 2 * back or math.ceil(1 / self.tick)

    def _check_end(self, second: float) -> None:
        """Raise SampleError if the video ends before a time that is inside the length in its header."""
        assert self.held is not None
        end = self.seconds(self._pts(self.held) + (self.held.duration or 0))
        if self.promised is not None and second < self.promised and second - end > 0.5:
            raise SampleError(name_of(self.source), f"is cut short: {end:.2f} s of {self.promised:.2f} s")


def _picture(frame: "VideoFrame", size: tuple[int, int], background: Sequence[int]) -> Tensor:
    """(H, W, 3), uint8."""
    # One thread: the frames are small, and each worker of a loader would start one per core.
    shape: dict[str, Any] = {"width": size[0], "height": size[1], "threads": 1}
    pixels: np.ndarray
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        rgba = frame.to_ndarray(format="rgba", **shape)
        pixels = np.empty((*rgba.shape[:2], 3), np.uint8)
        rows = max(1, _PIXELS_AT_ONCE // max(1, rgba.shape[1]))
        for top in range(0, len(rgba), rows):
            part = rgba[top : top + rows].astype(np.float32)
            alpha = part[..., 3:] / 255
            below = np.asarray(background, np.float32) * (1 - alpha)
            pixels[top : top + rows] = (part[..., :3] * alpha + below).round().astype(np.uint8)
    else:
        pixels = frame.to_ndarray(format="rgb24", **shape)
    return torch.from_numpy(np.ascontiguousarray(_upright(frame, pixels)))


def _upright(frame: "VideoFrame", pixels: np.ndarray) -> np.ndarray:
    """Rotate and flip by the display matrix: [[a, b, u], [c, d, v], [x, y, w]], a pixel's x goes to (a, b)."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 cannot list the side data of an image with EXIF
        return np.rot90(pixels, frame.rotation // 90)
    if matrix is None:
        return pixels
    a, b, _, c, d = (int(n) for n in np.frombuffer(matrix, dtype=np.int32)[:5])
    if abs(a) < abs(b):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    if across < 0:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if down < 0 else pixels
