"""Single frames of a film: found by seeking to the key frame before each, so that the film is never decoded whole."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmtrain.data.decoding.media import Probe, check_film_pixels, check_pixels, film_of, header_seconds, name_of, probed
from mmtrain.errors import SampleError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# These draw each picture upon the one before, whatever their packets call a key frame.
_WHOLE = ("gif", "apng")
_PIXELS_AT_ONCE = 1 << 22  # whose transparency is taken away as floats


class Frames(NamedTuple):
    """Frames of a film in the order of the times that were asked for.

    Attributes:
        pixels: (F, 3, H, W), uint8, RGB; a view of (F, H, W, 3), as they come from the decoder.
        seconds: (F,), float64, when each began to show, from the first frame of the film. Two that are equal are one
            frame.
    """

    pixels: Tensor
    seconds: Tensor


def read_frames(
    source: Path | bytes,
    times: Callable[[Probe], Sequence[float]],
    *,
    max_pixels: int,
    max_film_pixels: int,
    background: Sequence[int],
) -> Frames | None:
    """The frames that show at given times, turned as the camera was held.

    Args:
        source: a film, an animation or a picture, or its bytes.
        times: chooses F of them, by what the file holds, in seconds from the first frame; in any order. Before the
            first frame it is the first, after the last the last.
        max_pixels: a film with larger frames is not decoded, because one can fill the memory.
        max_film_pixels: of all chosen frames together; a film of which they have more is not decoded.
        background: the colour under transparent pixels.

    Returns:
        The frames; None when the file has sound and no film.

    Raises:
        SampleError: when it is missing, empty, not sound or film, damaged, too large, or ends before one of the times
            although its header promises more.
    """
    with probed(source, max_pixels) as (container, film):
        stream = film_of(container)
        if stream is None:
            return None
        chosen = times(film)
        assert len(chosen) > 0
        check_film_pixels(source, len(chosen), film.width, film.height, max_film_pixels)
        walk = _Walk(source, container, stream)
        pixels = torch.empty(0)
        places: dict[int, int] = {}  # in `pixels`, by presentation time
        found: dict[float, int] = {}
        size: tuple[int, int] | None = None
        for second in sorted(set(chosen)):
            frame, pts = walk.to(second)
            found[second] = pts
            if pts in places:
                continue
            if frame.is_corrupt:
                raise SampleError(name_of(source), f"the frame at {second:.2f} s is damaged")
            check_pixels(source, frame.width, frame.height, max_pixels)
            if size is None:
                size = frame.width, frame.height  # a stream from a phone can change it on the way
                check_film_pixels(source, len(chosen), *size, max_film_pixels)
            picture = _picture(frame, size, background)
            if not places:
                pixels = torch.empty(len(set(chosen)), *picture.shape, dtype=torch.uint8)
            pixels[len(places)] = picture
            places[pts] = len(places)
        shown = torch.tensor([walk.seconds(found[t]) for t in chosen], dtype=torch.float64)
        rows = [places[found[t]] for t in chosen]
        in_order = rows == list(range(len(rows)))
        return Frames((pixels if in_order else pixels[rows]).permute(0, 3, 1, 2), shown)


class _Walk:
    """Goes through a film from front to back, and leaps to a key frame where that saves decoding."""

    def __init__(self, source: Path | bytes, container: "InputContainer", stream: "VideoStream") -> None:
        from av.codec.context import ThreadType

        assert stream.time_base is not None
        self.source = source
        self.container = container
        self.stream = stream
        self.tick = stream.time_base
        self.origin = stream.start_time or 0
        self.promised = header_seconds(container, stream)
        # a bare stream of H.264 has no times to seek by, nor has a picture
        self.seekable = stream.start_time is not None and container.format.name not in _WHOLE
        # Measured on 60 s at 640 x 480 of H.264 and MPEG-4, 16 frames: threads double the work after each leap, and the
        # loader has workers of its own.
        stream.thread_type = ThreadType.NONE
        self.frames: Iterator[VideoFrame] = container.decode(stream)
        self.held: VideoFrame | None = None  # the last that began to show before the time that was asked for
        self.ahead: VideoFrame | None = None  # the one after it
        self.count = 0
        self.last_key = self.origin
        self.longest = round(1 / self.tick)  # from a key frame to the next, as far as we know

    def seconds(self, pts: int) -> float:
        """A presentation time from the first frame on."""
        return float((pts - self.origin) * self.tick)

    def to(self, second: float) -> tuple["VideoFrame", int]:
        """The frame that shows at a time, not before the last one asked for, and its presentation time."""
        # half a millisecond of grace: Matroska keeps the 66.67 ms of a frame as 67
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
        """Whether there is a key frame between here and there; a guess where the film has no list of them."""
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
        """Go to a frame that is not after the target; several attempts where the container seeks by guess."""
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
        """Raise SampleError when the film ends before a time that lies within what its header promises."""
        assert self.held is not None
        end = self.seconds(self._pts(self.held) + (self.held.duration or 0))
        if self.promised is not None and second < self.promised and second - end > 0.5:
            raise SampleError(name_of(self.source), f"is cut short: {end:.2f} s of {self.promised:.2f} s")


def _picture(frame: "VideoFrame", size: tuple[int, int], background: Sequence[int]) -> Tensor:
    """(H, W, 3), uint8."""
    # One thread: the frames are small, and each worker of a loader would start as many as there are cores.
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
    """Turn and mirror as the display matrix says: [[a, b, u], [c, d, v], [x, y, w]], a pixel's x goes to (a, b)."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 cannot list what hangs on a picture with EXIF
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
