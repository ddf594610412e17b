"""Damaged files of every kind: our error, or what can be read of them. Never another error, never a hang.

Examples of each are few here; `FUZZ_EXAMPLES=3000 python -m pytest tests/test_fuzz.py` tries more.
"""

import io
import json
import os
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

from mmtrain.build import compose, make
from mmtrain.checkpoints import load_checkpoint
from mmtrain.data.files import read_folder
from mmtrain.data.kinds import InputKind
from mmtrain.data.splits import Split
from mmtrain.errors import ConfigError, SampleError
from mmtrain.weights import write_weights
from mmtrain.whole import write_whole
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


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
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
    "wav": ("audio", lambda: wav(tone(0.2, 8000), rate=8000)),
    "flac": ("audio", lambda: encoded_sound(tone(0.2, 8000), 8000, "flac", "flac")),
    "ogg": ("audio", lambda: encoded_sound(tone(0.2, 48000), 48000, "ogg", "libopus")),
    "mp4": ("video", film),
    "mkv": ("video", lambda: film("matroska")),
}


@pytest.fixture(scope="module")
def readers() -> dict[str, InputKind]:
    scale = [f"data.inputs.{m}.{key}=[0.5,0.5,0.5]" for m in ("image", "video") for key in ("mean", "std")]
    inputs = compose([*scale, "data.inputs.image.size=32", "data.inputs.video.size=32"]).data.inputs
    return {modality: make(inputs[modality], f"data.inputs.{modality}") for modality in ("image", "audio", "video")}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_sample_is_set_aside_or_read(kind: str, readers: dict[str, InputKind], tmp_path: Path) -> None:
    modality, make = SAMPLES[kind]
    whole = make()
    reader = readers[modality]
    assert reader.load(whole, tmp_path, seed=0, train=True) is not None

    @quick
    @given(damage(), st.booleans())
    def read(damaged: Callable[[bytes], bytes], train: bool) -> None:
        try:
            found = reader.load(damaged(whole), tmp_path, seed=0, train=train)
        except SampleError:
            return
        assert found is None or found[0].isfinite().all()

    read()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_damaged_table_is_told_of_or_read(kind: str, tmp_path: Path) -> None:
    whole = table(kind)
    numbers = iter(range(10**6))
    said: list[str] = []

    @settings(quick, max_examples=EXAMPLES // 4)
    @given(damage())
    def read(damaged: Callable[[bytes], bytes]) -> None:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / f"train.{kind}").write_bytes(damaged(whole))
        try:
            found = read_folder(folder, Split(column=None, fractions={"train": 1.0}, group=None))
            assert list(found.splits["train"])
        except ConfigError as error:
            said.append(str(error))

    read()
    assert [message for message in said if len(message.splitlines()) < 2] == [], "without a mend"


@pytest.mark.parametrize(("name", "write"), [("a.ckpt", write_whole), ("a.safetensors", write_weights)])
def test_a_damaged_checkpoint_is_refused_or_the_same(name: str, write: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / name
    content = {"global_step": 3, "state_dict": {"a": torch.arange(30.0)}, "mmtrain": {"version": "0"}}
    write(content, path)
    whole = path.read_bytes()

    @quick
    @given(damage())
    def read(damaged: Callable[[bytes], bytes]) -> None:
        path.write_bytes(damaged(whole))
        try:
            found = load_checkpoint(path)
        except ConfigError:
            return
        assert torch.equal(found["state_dict"]["a"], content["state_dict"]["a"]) and found["global_step"] == 3

    read()
