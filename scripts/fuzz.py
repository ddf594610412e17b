"""Damage files and cells of every kind, and check how the readers handle them.

    python scripts/fuzz.py [--count 2000] [--seed 0] [--memory 4] [--seconds 60] [READER ...]

For each reader, inputs are made from valid ones: bytes are changed, removed and inserted, numbers in headers are
replaced by extreme ones (with corrected checksums of PNG and tar), headers are made by hand, and cells have other
types. Input number N of a reader follows only from the seed, the reader and N. A child process reads them, with a limit
of additional memory in GiB and of seconds per input. It prints

    reader | tried | read | set aside | caught | other | MB | s

"caught" are inputs that were quarantined only because every exception is caught
(mmtrain/data/tables/sample_errors.py): their types are listed below. "other" must be 0: an uncaught exception, a crash,
an input out of time. MB and s are the largest memory and the longest time of an input, each with its number. `--only N`
reads one input and prints what happens; `--save DIR` also writes it to a file.

Linux only, because it reads /proc. The exit status is 1 if there is an "other".
"""

import argparse
import io
import json
import math
import os
import random
import re
import resource
import select
import signal
import struct
import sys
import tarfile
import time
import warnings
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import av
import numpy as np
import torch
import yaml
from PIL import Image

from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import instantiate
from mmtrain.data.dataset import load_inputs
from mmtrain.data.sources.parquet_shard import GroupCache, ParquetShard, index_parquet
from mmtrain.data.sources.shard_files import place_of
from mmtrain.data.sources.tar_shard import TarShard, index_tar
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Sample

Draw = random.Random
WILD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SIDE = 24  # pixels of a valid image


# ------------------------------------------------------------ valid inputs


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    deep = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 100)
    frames = [rgb, rgb.rotate(90)]
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        **{f"png {m}": encoded(rgb.convert(m), "PNG") for m in ("1", "L", "LA", "P", "RGB", "RGBA")},
        "png 16": encoded(deep, "PNG"),
        "apng": encoded(rgb, "PNG", save_all=True, append_images=frames),
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "mpo": encoded(rgb, "MPO", save_all=True, append_images=frames),
        "gif": encoded(rgb, "GIF", save_all=True, append_images=frames),
        "webp": encoded(rgb, "WEBP"),
        "webp lossless": encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        "webp frames": encoded(rgb, "WEBP", save_all=True, append_images=frames),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(rgb.convert("P"), "BMP"),
        "ppm": encoded(rgb, "PPM"),
        "pgm plain": b"P2\n4 4\n255\n" + b" ".join(b"%d" % n for n in range(16)),
        "pfm": encoded(rgb.convert("F"), "PPM"),
        "avif": encoded(rgb, "AVIF"),
        "jp2": encoded(rgb, "JPEG2000"),
        "j2k": encoded(rgb, "JPEG2000", no_jp2=True),
        "ico": encoded(rgb, "ICO", sizes=[(16, 16), (SIDE, SIDE)]),
        "ico bmp": encoded(rgb, "ICO", sizes=[(16, 16)], bitmap_format="bmp"),
        **{f"tiff {m}": encoded(rgb.convert(m), "TIFF") for m in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "F")},
        "tiff 16": encoded(deep, "TIFF"),
    }
    packed = ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg")
    made |= {f"tiff {p}": encoded(rgb, "TIFF", compression=p) for p in packed}
    return made | {"tiff group4": encoded(rgb.convert("1"), "TIFF", compression="group4")}


def tone(rate: int, seconds: float = 0.2) -> np.ndarray:
    return (np.sin(np.arange(round(seconds * rate)) * 0.2) * 20000).astype(np.int16)


def wav(rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes(tone(rate).tobytes())
    return file.getvalue()


def recording(kind: str, codec: str, rate: int, film: str | None = None) -> bytes:
    """A sound, or a video with sound."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        if film is not None:
            pictures: Any = container.add_stream(film, rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            pictures.options = {"x264-params": "threads=1"} if film == "libx264" else {}
        voice: Any = container.add_stream(codec, rate=rate) if codec else None
        if voice is not None:
            voice.layout, voice.bit_rate = "mono", 64_000
        if film is not None:
            for number in range(8):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 30 * number, np.uint8), format="rgb24")
                frame.pts = number
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if voice is not None:
            full = av.AudioFrame.from_ndarray(tone(rate)[None], format="s16", layout="mono")
            full.sample_rate, full.pts = rate, 0
            resampler = av.AudioResampler(voice.format, "mono", rate, voice.codec_context.frame_size or 1024)
            for piece in [*resampler.resample(full), *resampler.resample(None)]:
                container.mux(voice.encode(piece))
            container.mux(voice.encode(None))
    return file.getvalue()


SOUNDS = {
    "flac": ("flac", "flac", 8000),
    "mp3": ("mp3", "libmp3lame", 16000),
    "opus": ("ogg", "libopus", 48000),
    "m4a": ("mp4", "aac", 16000),
    "adts": ("adts", "aac", 16000),
    "aiff": ("aiff", "pcm_s16be", 16000),
    "caf": ("caf", "pcm_s16be", 16000),
    "w64": ("w64", "pcm_s16le", 16000),
    "au": ("au", "pcm_s16be", 16000),
    "wma": ("asf", "wmav2", 16000),
    "mka": ("matroska", "aac", 16000),
}
FILMS = {
    "mp4": ("mp4", "aac", 16000, "libx264"),
    "mov": ("mov", "aac", 16000, "mpeg4"),
    "mkv": ("matroska", "aac", 16000, "libx264"),
    "webm": ("webm", "libopus", 48000, "libvpx"),
    "avi": ("avi", "pcm_s16le", 16000, "mpeg4"),
    "flv": ("flv", "aac", 16000, "flv1"),
    "mpegts": ("mpegts", "aac", 16000, "libx264"),
    "h264": ("h264", "", 16000, "libx264"),
}


def sounds() -> dict[str, bytes]:
    return {"wav": wav(), **{name: recording(*how) for name, how in SOUNDS.items()}}


def films() -> dict[str, bytes]:
    frames = [Image.new("RGB", (32, 24), (n, 0, 0)) for n in (0, 90, 180)]
    made = {name: recording(*how) for name, how in FILMS.items()}
    made["gif"] = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)
    made["apng"] = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    return made


FEATURES = np.arange(24, dtype=np.float32).reshape(12, 2)


def arrays() -> dict[str, bytes]:
    made = {}
    for name, save in {
        "npy": lambda file: np.save(file, FEATURES),
        "npy f8": lambda file: np.save(file, FEATURES.astype(np.float64)),
        "npz": lambda file: np.savez(file, a=FEATURES, b=FEATURES),
        "npz packed": lambda file: np.savez_compressed(file, a=FEATURES),
    }.items():
        file = io.BytesIO()
        save(file)
        made[name] = file.getvalue()
    return made


def files_of_arrays() -> dict[str, bytes]:
    from safetensors.torch import save

    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.tensor(FEATURES)}, new)
    torch.save(torch.tensor(FEATURES), old, _use_new_zipfile_serialization=False)
    return {
        "a.pt": new.getvalue(),
        "b.pt": old.getvalue(),
        "c.safetensors": save({"a": torch.tensor(FEATURES)}),
    }


def tars() -> dict[str, bytes]:
    made = {}
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name, content in (
                ("0.jpg", b"x" * 700),
                ("0.json", b'{"a": [1, {"b": "c"}]}'),
                ("0.txt", b"a cat"),
                ("f/" * 20 + ("long" * 30 if form else "") + ".jpg", b"y"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        made[f"tar {form}"] = file.getvalue()
    return made


def parquets() -> dict[str, bytes]:
    from pyarrow import Table, parquet

    rows = [{"id": f"r{n}", "caption": f"word {n}", "image": b"p" * n, "n": [n / 2] * 3} for n in range(12)]
    made = {}
    for packing in ("none", "snappy", "zstd"):
        file = io.BytesIO()
        parquet.write_table(Table.from_pylist(rows), file, row_group_size=4, compression=packing)
        made[packing] = file.getvalue()
    return made


TALK = [
    {"role": "user", "content": "what is this?"},
    {"role": "assistant", "content": "a red cat"},
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "it is"},
]


# ----------------------------------------------------------------- damage


def damaged(good: bytes, draw: Draw, others: Sequence[bytes]) -> bytes:
    """Apply some of: changed bytes, extreme numbers, removed, doubled or foreign pieces, a truncated end."""
    out = bytearray(good)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        if not out:
            break
        near = draw.random() < 0.6  # most headers are at the beginning
        at = draw.randrange(min(len(out), 200 if near else len(out)))
        kind = draw.randrange(7)
        if kind <= 1:
            out[at] = draw.randrange(256)
        elif kind <= 3:
            width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
            value = draw.choice((*WILD, draw.randrange(2**32), len(good), len(good) - at))
            out[at : at + width] = (value % 256**width).to_bytes(width, order)
        elif kind == 4:
            del out[at : at + draw.randrange(1, 40)]
        elif kind == 5:
            piece = draw.choice((good, *others))
            start = draw.randrange(len(piece))
            out[at:at] = piece[start : start + draw.randrange(1, 200)]
        else:
            del out[draw.randrange(len(out)) :]
    return bytes(out)


def right_png(data: bytes) -> bytes:
    """Correct the checksums, so that changes are read."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        size = int.from_bytes(out[at : at + 4], "big")
        if at + 12 + size > len(out):
            break
        out[at + 8 + size : at + 12 + size] = zlib.crc32(out[at + 4 : at + 8 + size]).to_bytes(4, "big")
        at += 12 + size
    return bytes(out)


def right_tar(data: bytes) -> bytes:
    """Correct the checksums in every block that looks like a header."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def png(width: int, height: int, bits: int = 8, color: int = 0) -> bytes:
    """A black image of any size, in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    left, packer, packed = (1 + (width * bits * samples + 7) // 8) * height, zlib.compressobj(1), b""
    while left > 0 and len(packed) < 1 << 17:  # some are truncated
        packed += packer.compress(bytes(min(left, 1 << 20)))
        left -= 1 << 20
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    colors = chunk(b"PLTE", bytes(3)) if color == 3 else b""
    body = chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colors + body + chunk(b"IEND", b"")


def tiff(draw: Draw) -> bytes:
    """One empty strip or tile, with tags of any value."""
    body = zlib.compress(bytes(SIDE * SIDE * 3))
    width, height = (draw.choice((1, SIDE, 30_000, 70_000, 2**31 - 1)) for _ in range(2))
    tags = {256: width, 257: height, 258: 8, 259: draw.choice((1, 5, 8, 7, 32773, 50000, 34712, 4)), 262: 1, 277: 1}
    if draw.random() < 0.5:
        tags |= {
            322: draw.choice((16, 4096, 30_000, 2**20)),
            323: draw.choice((16, 4096, 30_000)),
            324: 0,
            325: len(body),
        }
    else:
        tags |= {273: 0, 278: draw.choice((1, SIDE, 2**32 - 1)), 279: len(body)}
    for _ in range(draw.randrange(4)):
        tags[draw.choice((*tags, 254, 258, 262, 277, 284, 317, 320, 338, 339, 700, 34665, 34853, 274))] = draw.choice(
            WILD
        )
    start = 8 + 2 + 12 * len(tags) + 4
    tags = {tag: start if tag in (273, 324) and not value else value for tag, value in tags.items()}
    entries = b"".join(
        struct.pack(
            "<HHII", tag, draw.choice((4, 4, 4, 3, 1, 5, 7, 12)), draw.choice((1, 1, 1, 1, *WILD)), value % 2**32
        )
        for tag, value in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body


def icon(draw: Draw) -> bytes:
    """An image whose size differs from its header."""
    inside = png(draw.choice((1, 16, 65_500)), draw.choice((1, 16, 5000)), 8, draw.choice((0, 2, 3, 6)))
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def wild_wav(draw: Draw) -> bytes:
    rate, bits = draw.choice((*WILD, 8000, 44100)), draw.choice((0, 1, 8, 16, 24, 32, 64, 255))
    channels, body = draw.choice((0, 1, 2, 64, 1000, 65535)), bytes(draw.randrange(4000))
    form = draw.choice((1, 1, 3, 6, 7, 17, 0x55, 0xFFFE, draw.randrange(65536)))
    size = draw.choice((len(body), *WILD))
    head = struct.pack(
        "<HHIIHH", form, channels, rate, draw.choice((rate * 2, *WILD)) % 2**32, 2 * channels % 65536, bits
    )
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(body))
        + b"WAVEfmt \x10\0\0\0"
        + head
        + b"data"
        + struct.pack("<I", size)
        + body
    )


def wild_npy(draw: Draw) -> bytes:
    shape = draw.choice(
        ("(12, 2)", "(-1, 2)", "(1000000000, 1000)", "(99999999, 1)", "('a', 9)", "(1.5,)", "3", "(True,)")
    )
    kind = draw.choice(("'<f4'", "'<f8'", "'|O'", "'<U99999999'", "'<c16'", "'|V8'", "[('a', '<f4')]", "'?'", "None"))
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    version = draw.choice((1, 1, 2, 3, 9))
    length = draw.choice((len(head), len(head), *WILD)) % (65536 if version == 1 else 2**32)
    head = struct.pack("<H" if version == 1 else "<I", length) + head
    made = b"\x93NUMPY" + bytes((version, 0)) + head + FEATURES.tobytes()
    if draw.random() < 0.3:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(draw.choice(("a.npy", "a", "../a.npy")), made + bytes(draw.choice((0, 10**7))))
        made = file.getvalue()
    return made


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def wild_mp4(draw: Draw) -> bytes:
    """A header without a video after it."""
    many = draw.choice((0, 1, 8, 10**6, 5 * 10**7, 2**31 - 1, 2**32 - 1))

    def table(kind: bytes, *numbers: int) -> bytes:
        return box(kind, bytes(4) + b"".join(struct.pack(">I", n) for n in numbers))

    def some() -> int:
        return draw.choice((1, many, *WILD))

    size = struct.pack(">HH", draw.choice((64, 65535)), draw.choice((48, 65535)))
    entry = box(
        draw.choice((b"mp4v", b"avc1", b"jpeg", b"raw ", b"png ")), bytes(24) + size + bytes(46) + b"\0\x18\xff\xff"
    )
    if draw.random() < 0.4:
        entry = box(
            draw.choice((b"sowt", b"mp4a", b"alac", b"ulaw")), bytes(8 + 8) + struct.pack(">HHIHH", 1, 16, 0, 16000, 0)
        )
    tables = [
        table(b"stts", 1, some(), some()),
        table(b"stsc", 1, 1, some(), 1),
        table(b"stsz", some(), many),
        table(b"stco", 1, 40),
        table(b"ctts", 1, some(), some()),
        table(b"elst", 1, some(), 0, 65536),
    ]
    draw.shuffle(tables)
    handler = b"soun" if entry[4:8] in (b"sowt", b"mp4a", b"alac", b"ulaw") else b"vide"
    inner = box(b"stbl", box(b"stsd", bytes(4) + struct.pack(">I", 1) + entry), *tables)
    media = box(
        b"mdia",
        box(b"mdhd", bytes(4) + struct.pack(">IIIIHH", 0, 0, draw.choice((1000, 0, 1)), some(), 0, 0)),
        box(b"hdlr", bytes(8) + handler + bytes(13)),
        box(b"minf", inner),
    )
    track = box(b"trak", box(b"tkhd", bytes(12) + struct.pack(">II", 1, 0) + bytes(64)), media)
    moov = box(b"moov", box(b"mvhd", bytes(12) + struct.pack(">II", 1000, some()) + bytes(80)), track)
    run = box(b"trun", struct.pack(">IIi", draw.choice((1, 0x301)), many, 8))
    moof = box(b"moof", box(b"traf", box(b"tfhd", struct.pack(">II", 0x020000, 1)), run))
    return box(b"ftyp", b"isom\0\0\0\0isom") + moov + (moof if draw.random() < 0.3 else b"") + box(b"mdat", bytes(64))


ODD = (
    None,
    True,
    math.nan,
    math.inf,
    -1,
    0,
    2**31,
    10**30,
    1e39,
    "",
    " ",
    "a",
    "\ud83d",
    "a\0b",
    "16 kHz",
    b"",
    b"x",
    "x" * 9,
)


def odd_cell(draw: Draw, depth: int = 0) -> Any:
    """A cell of another type, often nested."""
    kind = draw.randrange(9)
    if depth > 3 or kind < 4:
        return draw.choice(ODD)
    if kind == 4:
        shape = draw.choice(((0,), (3,), (2, 2), (4, 4, 3), (1, 1, 1, 1), (70_000, 1, 3), (1, 70_000)))
        return np.zeros(shape, draw.choice(("u1", "f4", "f8", "i8", "c8", "?", "O")))
    if kind <= 6:
        return [odd_cell(draw, depth + 1) for _ in range(draw.randrange(4))]
    keys = draw.choice(
        (("array", "sampling_rate"), ("bytes", "path"), ("role", "content"), ("text", "speaker"), ("answer",))
    )
    return {key: odd_cell(draw, depth + 1) for key in keys if draw.random() < 0.9}


def talk(draw: Draw) -> Any:
    """A damaged dialogue, as a list or as JSON."""
    if draw.random() < 0.1:
        return draw.choice(("[", '[{"a":')) * draw.choice((90, 2000, 200_000))
    turns = [dict(turn) for turn in TALK[: draw.randrange(1, 5)]]
    for _ in range(draw.randrange(3)):
        turn: Any = draw.choice(turns)
        turn[draw.choice(("role", "content", "from", "value"))] = odd_cell(draw)
    if draw.random() < 0.5:
        return turns
    text = json.dumps(turns, default=str)
    return damaged(text.encode("utf-8"), draw, []).decode("utf-8", "surrogateescape") if draw.random() < 0.7 else text


# ---------------------------------------------------------------- readers


class Case(NamedTuple):
    """How a reader is tested: a function that draws inputs, and one that reads them and raises errors."""

    make: Callable[[Draw], Any]
    read: Callable[[Any, bool], None]


def maker(good: dict[str, bytes], *by_hand: Callable[[Draw], Any], odd: float = 0.1) -> Callable[[Draw], Any]:
    """Damaged files, files made by hand, and cells of other types."""
    files = list(good.values())

    def make(draw: Draw) -> Any:
        chance = draw.random()
        if chance < odd:
            return odd_cell(draw)
        if by_hand and chance < odd + 0.2:
            return draw.choice(by_hand)(draw)
        bad = damaged(draw.choice(files), draw, files)
        return right_png(bad) if bad.startswith(b"\x89PNG") and draw.random() < 0.7 else bad

    return make


def configured(group: str, name: str, **changed: Any) -> Any:
    """A component as configured in its YAML file."""
    node = yaml.safe_load((Path(config_dir()) / group / f"{name}.yaml").read_text())
    for key, value in changed.items():
        place, _, last = key.rpartition(".")
        (node[place] if place else node)[last] = value
    return instantiate(node, _convert_="all")


def cases(folder: Path) -> dict[str, Case]:
    """Cases by name of the reader."""
    look: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 224}
    look |= {"resize_size": None, "interpolation": "bilinear", "crop_offset": "round"}
    film = look | {"crop_scale": 0.6, "background": [255] * 3, "max_pixels": 10**8, "value_range": None}
    still = look | {"resize_backend": "pillow", "max_patches": None, "patch_size": None}
    words: dict[str, Any] = {"tokenizer": None, "vocab_size": 300, "max_length": 32, "word_dropout": 0.3}
    inputs = {
        "image": configured("input", "image", **still),
        "images": configured("input", "images", **still),
        "audio": configured("input", "audio", sample_rate=16000, max_seconds=10.0),
        "video": configured("input", "video", **film),
        "sequence": configured("input", "sequence"),
        "vector": configured("input", "vector"),
        "text": configured("input", "text", **words),
        "dialogue": configured("input", "dialogue", **words, max_length=16),
    }
    good_cells = {"sequence": [FEATURES] * 2, "vector": [[1.0, 2.0]], "text": ["a red cat"], "dialogue": [["a", "b"]]}
    for name, cells in good_cells.items():
        inputs[name].fit(cells, folder)

    def load(name: str) -> Callable[[Any, bool], None]:
        def read(cell: Any, train: bool) -> None:
            load_inputs(Sample(), {name: cell}, {name: inputs[name]}, folder, seed=1, train=train)

        return read

    def fit(name: str, part: Any, good: Any) -> Callable[[Any, bool], None]:
        """Learn a vocabulary from the bad cell first, and then load it."""

        def read(cell: Any, train: bool) -> None:
            part.fit([cell, good], folder)
            with sample_errors(cell):
                _ = part.load(cell, folder, seed=1, train=train) if name == "dialogue" else part.load(cell)

        return read

    from mmtrain.data.targets.answer import Answer
    from mmtrain.data.targets.chat import ChatTarget
    from mmtrain.data.targets.label import ClassLabel
    from mmtrain.data.targets.multilabel import MultiLabel
    from mmtrain.data.targets.number import Number

    chat = ChatTarget(
        column_roles=["turns"], prompt="", tokenizer=None, template=None, vocab_size=300, max_length=256,
        placeholders=["image"], keep_references=False,
    )  # fmt: skip

    def file_of(name: str, read: Callable[[Any], None]) -> Callable[[Any, bool], None]:
        def write(cell: Any, train: bool) -> None:
            path = folder / name
            path.write_bytes(cell)
            read(path)

        return write

    def tar(path: Path) -> None:
        place = place_of(str(path))
        np.savez(folder / "index.npz", **index_tar(place))  # type: ignore[arg-type]
        shard = TarShard(place, folder / "index.npz")
        with sample_errors(path.name):
            for row in range(len(shard._index["name_ends"])):
                for column in shard.columns(row):
                    shard.cell(row, column)

    def parquet(path: Path) -> None:
        place = place_of(str(path))
        np.savez(folder / "index.npz", **index_parquet(place))  # type: ignore[arg-type]
        shard = ParquetShard(place, folder / "index.npz", GroupCache(3))
        with sample_errors(path.name):
            for row in range(12):
                for column in shard.columns(row):
                    shard.cell(row, column)

    def named_array(draw: Draw) -> Any:
        name, good = draw.choice(list(array_files.items()))
        return name, damaged(good, draw, list(array_files.values()))

    def read_named(cell: Any, train: bool) -> None:
        name, content = cell
        (folder / name).write_bytes(content)
        load("sequence")(name, train)

    def packed_tar(draw: Draw) -> bytes:
        bad = damaged(draw.choice(tar_files), draw, tar_files)
        return right_tar(bad) if draw.random() < 0.8 else bad

    def black(draw: Draw) -> bytes:
        width, height = draw.choice((1, 30, 5000, 65_500, 10**6)), draw.choice((1, 30, 5000, 65_500))
        return png(width, height, draw.choice((1, 8, 16)), draw.choice((0, 2, 3, 4, 6)))

    array_files, tar_files, parquet_files = files_of_arrays(), list(tars().values()), list(parquets().values())
    picture = maker(pictures(), black, tiff, icon)
    return {
        "image": Case(picture, load("image")),
        "images": Case(lambda draw: [picture(draw) for _ in range(draw.randrange(3))], load("images")),
        "audio": Case(maker(sounds(), wild_wav, wild_mp4, odd=0.2), load("audio")),
        "video": Case(maker(films(), wild_mp4, black, lambda draw: [black(draw)] * 2), load("video")),
        "sequence": Case(maker(arrays(), wild_npy, odd=0.3), load("sequence")),
        "array files": Case(named_array, read_named),
        "vector": Case(odd_cell, load("vector")),
        "text": Case(odd_cell, load("text")),
        "dialogue": Case(talk, fit("dialogue", inputs["dialogue"], ["a", "b"])),
        "chat": Case(talk, fit("chat", chat, TALK)),
        "class": Case(odd_cell, fit("class", ClassLabel(), "a")),
        "classes": Case(odd_cell, fit("classes", MultiLabel(separator="|"), "a|b")),
        "number": Case(odd_cell, fit("number", Number(scale="standard"), 1.0)),
        "answer": Case(odd_cell, fit("answer", Answer(num_answers=10), "yes")),
        "tar": Case(packed_tar, file_of("a.tar", tar)),
        "parquet": Case(lambda draw: damaged(draw.choice(parquet_files), draw, []), file_of("a.parquet", parquet)),
    }


# -------------------------------------------------------------- the test


def outcome(case: Case, cell: Any, train: bool) -> tuple[str, str]:
    """The outcome of an input, and the reason."""
    try:
        case.read(cell, train)
    except SampleError as error:
        caught = error.reason.startswith("cannot be read: ") and error.__cause__ is not None
        return ("caught", f"{error.error_type}: {error.reason}") if caught else ("set aside", error.reason)
    except ConfigError as error:
        return "set aside", str(error)
    except Exception as error:  # noqa: BLE001 - this is searched for
        return "other", f"{type(error).__name__}: {error}"
    return "read", ""


def peak() -> int:
    """Peak of memory of the process in MB since the last call, and reset it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    Path("/proc/self/clear_refs").write_text("5")
    assert match is not None
    return int(match[1]) // 1024


def child(case: Case, name: str, seed: int, numbers: range, pipe: int, memory: float) -> None:
    """Read inputs, and write a line before and after each."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + int(memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        draw = Draw(f"{seed} {name} {number}")
        cell = case.make(draw)
        os.write(pipe, f"{json.dumps({'begin': number})}\n".encode())
        before = peak()
        start = time.perf_counter()
        what, why = outcome(case, cell, draw.random() < 0.5)
        seconds = time.perf_counter() - start
        line = {"end": number, "what": what, "why": why[:300], "seconds": seconds, "mb": max(0, peak() - before)}
        os.write(pipe, f"{json.dumps(line)}\n".encode())


class Tally(NamedTuple):
    """The outcomes of the inputs of a reader."""

    counts: Counter[str]
    types: Counter[str]
    others: list[str]
    most_mb: list[tuple[float, int]]
    most_seconds: list[tuple[float, int]]


def tried(case: Case, name: str, args: argparse.Namespace) -> Tally:
    """Try all inputs of a reader. A child that dies is replaced, and continues after the input that killed it."""
    tally = Tally(Counter(), Counter(), [], [], [])
    first = 0
    while first < args.count:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(case, name, args.seed, range(first, args.count), write, args.memory)
            finally:
                os._exit(0)
        os.close(write)
        at, buffer = first - 1, b""
        while True:
            ready, _, _ = select.select([read], [], [], args.seconds)
            if not ready:
                os.kill(pid, signal.SIGKILL)
            chunk = os.read(read, 65536)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in map(json.loads, lines):
                at = line.get("begin", at)
                if "end" in line:
                    note(tally, line)
                    first = at + 1
        os.close(read)
        status = os.waitpid(pid, 0)[1]
        if first < args.count:
            why = f"killed after {args.seconds} s" if status == signal.SIGKILL else f"died with status {status}"
            tally.counts["other"] += 1
            tally.others.append(f"{name} {at}: {why}")
            first = at + 1
    return tally


def note(tally: Tally, line: dict[str, Any]) -> None:
    """Count an input."""
    tally.counts[line["what"]] += 1
    if line["what"] == "caught":
        tally.types[line["why"].partition(":")[0]] += 1
    if line["what"] == "other":
        tally.others.append(f"{line['end']}: {line['why']}")
    for most, value in ((tally.most_mb, line["mb"]), (tally.most_seconds, round(line["seconds"], 2))):
        most.append((value, line["end"]))
        most.sort(reverse=True)
        del most[1:]


def main() -> int:
    """Return the exit status: 1 if anything except reading and quarantining happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="all by default")
    parser.add_argument("--count", type=int, default=2000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=float, default=4.0, help="maximum GiB per input")
    parser.add_argument("--seconds", type=float, default=60.0, help="maximum seconds per input")
    parser.add_argument("--only", type=int, default=None, help="read only this input")
    parser.add_argument("--save", type=Path, default=None, help="a folder for the input of --only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    av.logging.set_level(av.logging.PANIC)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        all_cases = cases(Path(folder))
        names = args.readers or list(all_cases)
        if args.only is not None:
            draw = Draw(f"{args.seed} {names[0]} {args.only}")
            cell = all_cases[names[0]].make(draw)
            if args.save is not None and isinstance(cell, bytes):
                (args.save / f"{names[0]}-{args.seed}-{args.only}").write_bytes(cell)
            print(repr(cell)[:200])
            print(*outcome(all_cases[names[0]], cell, draw.random() < 0.5))
            return 0
        heads = f"{'tried':>6} {'read':>6} {'aside':>6} {'caught':>6} {'other':>5} {'MB (input)':>15} {'s (input)':>15}"
        print(f"{'reader':12} {heads}")
        tallies = {}
        for name in names:
            tallies[name] = tally = tried(all_cases[name], name, args)
            counts = [tally.counts[what] for what in ("read", "set aside", "caught", "other")]
            worst = [f"{most[0][0]} ({most[0][1]})" for most in (tally.most_mb, tally.most_seconds)]
            print(
                f"{name:12} {sum(counts):6} " + " ".join(f"{n:{w}}" for n, w in zip(counts, (6, 6, 6, 5), strict=True)),
                end="",
            )
            print(f" {worst[0]:>15} {worst[1]:>15}", flush=True)
    for name, tally in tallies.items():
        if tally.types:
            print(f"{name}: caught {', '.join(f'{kind} {count}' for kind, count in tally.types.most_common())}")
        for other in tally.others:
            print(f"{name}: other {other}")
    return int(any(tally.others for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
