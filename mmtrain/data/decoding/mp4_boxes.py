"""Counts the samples in the header of an MP4 or QuickTime file, before FFmpeg uses it.

FFmpeg needs about 90 bytes of memory for each sample in a header, and a header of 600 bytes can have 80 million.
ISO/IEC 14496-12: a box is its size (4 bytes), its type (4) and its content, which can be boxes.
"""

import io
import zlib
from pathlib import Path
from typing import IO

_MAX_DEPTH = 12
_MAX_BOXES = 1_000_000
_MAX_PACKED = 1 << 24  # bytes of a compressed header
_LISTS = (b"stsz", b"stz2", b"trun")  # sample sizes of a video, of a compact one, of a fragment


def num_listed_samples(source: Path | bytes) -> int:
    """The number of samples in the header; 0 for a file of another kind.

    Raises:
        ValueError: for a header of millions of boxes, and for a compressed header that is huge after decompression.
    """
    if isinstance(source, bytes):
        return _Walk(io.BytesIO(source)).samples(0, len(source), 0)
    with source.open("rb") as file:
        return _Walk(file).samples(0, source.stat().st_size, 0)


class _Walk:
    """Goes through all boxes, because FFmpeg finds lists in almost every box."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.count = 0

    def samples(self, at: int, end: int, depth: int) -> int:
        result = 0
        while at + 8 <= end and depth < _MAX_DEPTH:
            self.count += 1
            if self.count > _MAX_BOXES:
                raise ValueError(f"a header of more than {_MAX_BOXES} boxes")
            self.file.seek(at)
            head = self.file.read(20)
            size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
            if size == 1:
                size, start = int.from_bytes(head[8:16], "big"), at + 16
            stop = min(end, at + size) if size else end
            if stop < start:
                break
            if kind in _LISTS:
                place = at + (12 if kind == b"trun" else 16)
                self.file.seek(place)
                result += int.from_bytes(self.file.read(4), "big")
            elif kind == b"cmvd":
                result += self._packed(start, stop, depth)
            else:
                result += self.samples(start, stop, depth + 1)
            at = stop
        return result

    def _packed(self, start: int, stop: int, depth: int) -> int:
        """Samples of a compressed QuickTime header: its size, and zlib data."""
        self.file.seek(start)
        size = int.from_bytes(self.file.read(4), "big")
        if size > _MAX_PACKED:
            raise ValueError(f"a header of {size} bytes when unpacked")
        content = zlib.decompressobj().decompress(self.file.read(stop - start - 4), size)
        return _Walk(io.BytesIO(content)).samples(0, len(content), depth + 1)
