"""Damaged files of every kind: our error, or what can be read of them. Never another error, never a hang.

Examples of each are few here; `FUZZ_EXAMPLES=3000 python -m pytest tests/test_fuzz.py` tries more. scripts/fuzz.py has
more readers and measures memory.
"""

import io
import json
import os
import resource
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import Table, parquet
from torch import Tensor

from mmtrain.build import compose
from mmtrain.config.instantiate import make
from mmtrain.data.dataset import load_inputs
from mmtrain.data.protocols import InputKind
from mmtrain.data.sources.files import read_folder
from mmtrain.data.sources.shard_files import place_of
from mmtrain.data.sources.tar_shard import TarShard, index_tar
from mmtrain.data.tables.splits import Split
from mmtrain.errors import ConfigError, SampleError
from mmtrain.training.checkpoint.io import write_checkpoint
from mmtrain.training.checkpoint.load import load_checkpoint
from mmtrain.training.checkpoint.safetensors import write_weights
from mmtrain.types import Sample
from tests.data.films import encoded_sound, tone, wav, write_film

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some bytes changed, some cut out or put in, the end cut off."""
    places = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
    out = draw(st.none() | st.tuples(st.floats(0, 1), st.integers(1, 40), st.binary(max_size=8)))
    end = draw(st.just(1.0) | st.floats(0, 1))

    def apply(content: bytes) -> bytes:
        damaged = bytearray(content)
        for place, value in places:
            damaged[int(place * (len(damaged) - 1))] = value
        if out is not None:
            start = int(out[0] * len(damaged))
            damaged[start : start + out[1]] = out[2]
        return bytes(damaged[: int(end * len(damaged))])

    return apply


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    floats = Image.fromarray((pixels[..., 0] / 255).astype(np.float32))  # a picture of floats is one in 0..1
    (floats if mode == "F" else Image.fromarray(pixels).convert(mode)).save(file, kind, **options)
    return file.getvalue()


def array(save: Callable[..., None], **options: Any) -> bytes:
    file = io.BytesIO()
    save(file, np.arange(12, dtype=np.float32).reshape(6, 2), **options)
    return file.getvalue()


def film(kind: str = "mp4") -> bytes:
    with TemporaryDirectory() as folder:
        return write_film(Path(folder) / "a", 8, kind=kind, sound=tone(0.3, 16000)).read_bytes()


def rows() -> list[dict[str, Any]]:
    return [{"caption": f"word {n}", "label": "ab"[n % 2], "number": n / 2} for n in range(12)]


def table(kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows()).encode()
    if kind == "csv":
        return ("caption,label,number\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows())).encode()
    file = io.BytesIO()
    parquet.write_table(Table.from_pylist(rows()), file)
    return file.getvalue()


SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("image", lambda: picture("PNG")),
    "jpeg": ("image", lambda: picture("JPEG")),
    "gif": ("image", lambda: picture("GIF")),
    "webp": ("image", lambda: picture("WEBP")),
    "tiff": ("image", lambda: picture("TIFF")),
    "tiff 1": ("image", lambda: picture("TIFF", "1", compression="group4")),
    "tiff P": ("image", lambda: picture("TIFF", "P", compression="tiff_lzw")),
    "tiff CMYK": ("image", lambda: picture("TIFF", "CMYK", compression="jpeg")),
    "tiff F": ("image", lambda: picture("TIFF", "F", compression="tiff_deflate")),
    "avif": ("image", lambda: picture("AVIF")),
    "jp2": ("image", lambda: picture("JPEG2000")),
    "ico": ("image", lambda: picture("ICO", sizes=[(16, 16)])),
    "bmp": ("image", lambda: picture("BMP")),
    "ppm": ("image", lambda: picture("PPM")),
    "wav": ("audio", lambda: wav(tone(0.2, 8000), rate=8000)),
    "flac": ("audio", lambda: encoded_sound(tone(0.2, 8000), 8000, "flac", "flac")),
    "ogg": ("audio", lambda: encoded_sound(tone(0.2, 48000), 48000, "ogg", "libopus")),
    "mp4": ("video", film),
    "mkv": ("video", lambda: film("matroska")),
    "npy": ("sequence", lambda: array(np.save)),
    "npz": ("sequence", lambda: array(np.savez_compressed)),
}


@pytest.fixture(scope="module")
def readers() -> dict[str, InputKind]:
    look = ["mean=[0.5,0.5,0.5]", "std=[0.5,0.5,0.5]", "size=32"]
    look += ["resize_size=null", "interpolation=bilinear", "crop_offset=round"]
    still = ["resize_backend=pillow", "max_patches=null", "patch_size=null"]
    of = {"image": [*look, *still], "video": look}
    inputs = compose([f"data.inputs.{m}.{word}" for m, words in of.items() for word in words]).data.inputs
    made = {m: make(inputs[m], f"data.inputs.{m}") for m in ("image", "audio", "video", "sequence")}
    made["sequence"].fit([np.ones((3, 2))], Path())
    return made


def tried(reader: InputKind, content: Any, folder: Path, *, train: bool = False) -> Tensor | None:
    """What becomes of a cell where samples are made: a tensor, nothing, or set aside."""
    sample = Sample()
    try:
        load_inputs(sample, {"x": content}, {"x": reader}, folder, seed=0, train=train)
    except SampleError:
        return None
    return sample.inputs.get("x")


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_sample_is_set_aside_or_read(kind: str, readers: dict[str, InputKind], tmp_path: Path) -> None:
    modality, make = SAMPLES[kind]
    full = make()
    reader = readers[modality]
    assert reader.load(full, tmp_path, seed=0, train=True) is not None

    @quick
    @given(damage(), st.booleans())
    def read(damaged: Callable[[bytes], bytes], train: bool) -> None:
        result = tried(reader, damaged(full), tmp_path, train=train)
        assert result is None or result.isfinite().all()

    read()


WILD = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@pytest.mark.parametrize("kind", SAMPLES)
def test_wild_numbers_in_a_header_are_set_aside_or_read(
    kind: str, readers: dict[str, InputKind], tmp_path: Path
) -> None:
    """With the checksums that PNG would otherwise stop at, and in little memory."""
    modality, make = SAMPLES[kind]
    full = make()

    @quick
    @given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(WILD), st.sampled_from((1, 2, 4))), max_size=3))
    def read(numbers: list[tuple[int, int, int]]) -> None:
        content = bytearray(full)
        for at, number, width in numbers:
            content[at : at + width] = (number % 256**width).to_bytes(width, "little" if at % 2 else "big")
        result = tried(readers[modality], right_png(content), tmp_path)
        assert result is None or result.isfinite().all()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "KiB"


def right_png(content: bytearray) -> bytes:
    at = 8
    while content.startswith(b"\x89PNG") and at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(content)


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=4)
    | st.binary(max_size=4)
    | st.sampled_from(["\ud83d", "a\0b", "16 kHz", 2**31, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["array", "sampling_rate", "bytes", "path"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("modality", ["image", "audio", "video", "sequence"])
def test_a_cell_of_any_other_type_is_set_aside_or_read(
    modality: str, readers: dict[str, InputKind], tmp_path: Path
) -> None:
    @quick
    @given(odd)
    def read(cell: Any) -> None:
        result = tried(readers[modality], cell, tmp_path)
        assert result is None or result.isfinite().all()

    read()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_damaged_tar_is_told_of_or_read(form: int, tmp_path: Path) -> None:
    """With right checksums, so that what is wrong is read."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in (("0.jpg", b"x" * 700), ("0.json", b'{"a": [1]}'), ("f" * 120 + ".jpg", b"y")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    full, path = file.getvalue(), tmp_path / "a.tar"

    @quick
    @given(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=12)), max_size=4))
    def read(block: int, changes: list[tuple[int, bytes]]) -> None:
        content = bytearray(full)
        for at, change in changes:
            content[512 * block + at : 512 * block + at + len(change)] = change
        for at in range(0, len(content) - 511, 512):
            if content[at + 257 : at + 262] == b"ustar":
                content[at + 148 : at + 156] = b" " * 8
                content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        path.write_bytes(content)
        try:
            place = place_of(str(path))
            np.savez(tmp_path / "index.npz", **index_tar(place))  # type: ignore[arg-type]
            shard = TarShard(place, tmp_path / "index.npz")
            for row in range(len(shard._index["name_ends"])):
                for column in shard.columns(row):
                    shard.cell(row, column)
        except (ConfigError, SampleError):
            return

    read()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_damaged_table_is_told_of_or_read(kind: str, tmp_path: Path) -> None:
    full = table(kind)
    numbers = iter(range(10**6))
    said: list[str] = []

    @settings(quick, max_examples=EXAMPLES // 4)
    @given(damage())
    def read(damaged: Callable[[bytes], bytes]) -> None:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / f"train.{kind}").write_bytes(damaged(full))
        try:
            result = read_folder(folder, Split(column=None, fractions={"train": 1.0}, group=None))
            assert list(result.splits["train"])
        except ConfigError as error:
            said.append(str(error))

    read()
    assert [message for message in said if len(message.splitlines()) < 2] == [], "without a fix"


@pytest.mark.parametrize(("name", "write"), [("a.ckpt", write_checkpoint), ("a.safetensors", write_weights)])
def test_a_damaged_checkpoint_is_refused_or_the_same(name: str, write: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / name
    content = {"global_step": 3, "state_dict": {"a": torch.arange(30.0)}, "mmtrain": {"version": "0"}}
    write(content, path)
    full = path.read_bytes()

    @quick
    @given(damage())
    def read(damaged: Callable[[bytes], bytes]) -> None:
        path.write_bytes(damaged(full))
        try:
            result = load_checkpoint(path)
        except ConfigError:
            return
        assert torch.equal(result["state_dict"]["a"], content["state_dict"]["a"]) and result["global_step"] == 3

    read()
