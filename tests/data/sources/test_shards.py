"""Shards: every row is found in its place, in any process, near or far; the fault of one is reported by its name."""

import io
import json
import multiprocessing
import os
import pickle
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtrain.data.dataset import EvalSplit, TrainSplit
from mmtrain.data.order import BlockOrder
from mmtrain.data.sources import shard_files as shard_places
from mmtrain.data.sources import shards
from mmtrain.data.sources.files import tables_of
from mmtrain.data.sources.shards import ShardTable, shard_tables
from mmtrain.data.sources.tar_shard import TarShard
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.row_digest import digest_rows
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError, SampleError
from tests.data.parts import WHOLE, draw_pictures, fitted_text_input, image_input

Content = str | bytes | dict[str, Any]


def write_tar(path: Path, members: Mapping[str, Content], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            raw = json.dumps(content) if isinstance(content, dict) else content
            data = raw.encode() if isinstance(raw, str) else raw
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def sample(shard: int, number: int) -> dict[str, Content]:
    """What a sample has: every third has no text."""
    stem = f"{number:04d}"
    members: dict[str, Content] = {f"{stem}.jpg": f"picture {shard} {number}".encode() * 50}
    if number % 3:
        members[f"{stem}.txt"] = f"caption {shard} {number}\n"
    return {**members, f"{stem}.json": {"score": number / 2, "tags": ["a", shard]}, f"{stem}.cls": f"{number % 2}"}


def write_tars(folder: Path, sizes: tuple[int, ...] = (4, 7, 5)) -> Path:
    for shard, size in enumerate(sizes):
        members = {name: content for n in range(size) for name, content in sample(shard, n).items()}
        write_tar(folder / f"train-{shard:03d}.tar", members)
    return folder


def parquet_rows(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": b"p%d" % n, "path": None}, "caption": [f"c{n}", "x"], "label": n % 3, "n": n}
        for n in range(first, last)
    ]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(cache: Path, train: Any, **changed: Any) -> Tables:
    options = {"val": None, "test": None, "window": 2, "fit_rows": 1000, "cache_dir": cache} | changed
    return shard_tables(train=train, **options)


def refused(cache: Path, train: Any, **changed: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(cache, train, **changed)
    what, _, fix = str(caught.value).partition("\n    ")
    assert what and fix
    return str(caught.value)


# ------------------------------------------------------------------- tars


def test_files_that_share_a_base_name_are_one_sample(tmp_path: Path, cache: Path) -> None:
    table = read(cache, str(write_tars(tmp_path / "tars") / "train-{000..002}.tar")).splits["train"]
    assert len(table) == 16
    assert table.column_names == ["id", "jpg", "cls", "txt", "score", "tags"]
    assert dict(table[4]) == {
        "id": "train-001/0000",
        "jpg": b"picture 1 0" * 50,
        "cls": "0",
        "score": 0.0,
        "tags": ["a", 1],
    }
    assert table[5]["txt"] == "caption 1 1" and table[5].get("png") is None
    assert [row["id"] for row in map(table.__getitem__, range(16))] == list(table["id"])
    assert len(set(table["id"])) == 16
    assert list(table["txt"])[:4] == [None, "caption 0 1", "caption 0 2", None]
    with pytest.raises(IndexError):
        table[16]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind_are_read(tmp_path: Path, cache: Path, form: int) -> None:
    long = "a-folder/" + ("very-" * 25 + "long/" if form != tarfile.USTAR_FORMAT else "")
    members: dict[str, Content] = {
        f"{long}Bär.jpeg": b"1" * 700,
        ".hidden.txt": "no",
        "readme": "no ending",
        f"{long}b.JPG": b"",
        f"{long}Bär.seg.png": b"2" * 512,
        "b.txt": "\ufeff ein Bär ",
    }
    write_tar(tmp_path / "x.tar", members, format=form)
    table = read(cache, str(tmp_path / "*.tar")).splits["train"]
    assert [dict(table[row]) for row in range(len(table))] == [
        {"id": f"x/{long}Bär", "jpg": b"1" * 700, "seg.png": b"2" * 512},
        {"id": f"x/{long}b", "jpg": b""},
        {"id": "x/b", "txt": "ein Bär"},
    ]


def test_the_index_is_made_once_without_reading_the_payload(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "big.tar", {f"{n}.jpg": b"x" * 100_000 for n in range(20)})
    counted = [0]
    really = shard_places.opened

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            counted[0] += size
            return super().read(size)

    monkeypatch.setattr("mmtrain.data.sources.tar_shard.opened", lambda path: Counting(path))
    read(cache, str(path))
    assert 0 < counted[0] < 20_000
    counted[0] = 0
    read(cache, str(path))
    assert counted[0] == 0
    monkeypatch.setattr("mmtrain.data.sources.tar_shard.opened", really)
    write_tar(path, {f"{n}.jpg": b"y" for n in range(3)})
    assert len(read(cache, str(path)).splits["train"]) == 3, "a shard that was changed is indexed anew"


def test_an_index_that_was_cut_short_is_made_again(tmp_path: Path, cache: Path) -> None:
    pattern = str(write_tars(tmp_path / "tars") / "*.tar")
    read(cache, pattern)
    for file in (cache / "shards").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert len(read(cache, pattern).splits["train"]) == 16


def test_the_index_is_small(tmp_path: Path, cache: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{n:09d}.{e}": b"" for n in range(3000) for e in ("jpg", "txt", "json")})
    read(cache, str(tmp_path / "a.tar"))
    (file,) = (cache / "shards").iterdir()
    assert file.stat().st_size < 3000 * 100


def cut(path: Path, size: int) -> str:
    path.write_bytes(path.read_bytes()[:size])
    return str(path)


def test_a_tar_that_is_cut_short_or_damaged_is_named(tmp_path: Path, cache: Path) -> None:
    def fresh(name: str) -> Path:
        return write_tar(tmp_path / name, {"0.jpg": b"x" * 1000, "1.jpg": b"y" * 1000})

    message = refused(cache, cut(fresh("payload.tar"), 512 + 1024 + 512 + 400))
    assert "payload.tar is truncated: 1.jpg should end at byte 3048, the file at 2448" in message
    assert "header.tar is truncated: in the header after 0.jpg" in refused(cache, cut(fresh("header.tar"), 1536 + 100))
    damaged = fresh("damaged.tar")
    raw = bytearray(damaged.read_bytes())
    raw[1536 + 20] ^= 255
    damaged.write_bytes(raw)
    assert "damaged.tar is damaged at byte 1536, after 0.jpg" in refused(cache, str(damaged))
    (tmp_path / "text.tar").write_text("no tar " * 200)
    assert "text.tar is not a tar" in refused(cache, str(tmp_path / "text.tar"))
    write_tar(tmp_path / "none.tar", {})
    assert "none.tar contains no sample" in refused(cache, str(tmp_path / "none.tar"))
    (tmp_path / "zero.tar").write_bytes(b"")
    assert "zero.tar contains no sample" in refused(cache, str(tmp_path / "zero.tar"))
    with tarfile.open(tmp_path / "gz.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"))
    assert "gz.tar is compressed" in refused(cache, str(tmp_path / "gz.tar"))


def header(path: Path, at: int, **fields: Any) -> str:
    """Change a header in a tar, with a right checksum: its size as GNU writes large ones, its type."""
    raw = bytearray(path.read_bytes())
    if "size" in fields:
        raw[at + 124 : at + 136] = bytes([0x80 if fields["size"] >= 0 else 0xFF]) + (fields["size"] % 256**11).to_bytes(
            11, "big"
        )
    if "kind" in fields:
        raw[at + 156 : at + 157] = fields["kind"]
    raw[at + 148 : at + 156] = b" " * 8
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    path.write_bytes(raw)
    return str(path)


@pytest.mark.parametrize("size", [-1, -512, -2048, -(2**60)])
def test_a_negative_size_in_a_header_is_damage_and_not_a_way_back(tmp_path: Path, cache: Path, size: int) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 1000, "1.jpg": b"y" * 1000})
    message = refused(cache, header(path, 1536, size=size))
    assert f"a.tar is damaged at byte 1536, after 0.jpg: 1.jpg has the size {size}" in message


def test_a_size_that_the_file_does_not_have_is_a_cut(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 1000, "1.jpg": b"y" * 1000})
    message = refused(cache, header(path, 1536, size=10**15))
    assert "a.tar is truncated: 1.jpg should end at byte 1000000000002048, the file at 10240" in message


def write_extended(path: Path, records: dict[str, str], body: bytes = b"y" * 700) -> Path:
    """0.jpg, and 1.jpg with a POSIX extension before it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, extension in (("0.jpg", b"x", {}), ("1.jpg", body, records)):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(content), extension
            tar.addfile(info, io.BytesIO(content))
    return path


def test_an_extension_gives_the_size_that_a_header_has_no_room_for(tmp_path: Path, cache: Path) -> None:
    """As of files of 8 GB and more: the header says 0 there."""
    path = write_extended(tmp_path / "a.tar", {"size": "700"})
    at = path.read_bytes().rfind(b"1.jpg\0")
    table = read(cache, header(path, at, size=0)).splits["train"]
    assert [row["jpg"] for row in (table[0], table[1])] == [b"x", b"y" * 700]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"size": "-700"}, "1.jpg has the size -700"),
        ({"size": "many"}, "1.jpg has the size many"),
        ({"size": "9" * 30}, "1.jpg has the size 999"),
        ({"GNU.sparse.major": "1", "GNU.sparse.realsize": str(10**15)}, "1.jpg is a sparse file; pack it without"),
        ({"comment": "x" * (1 << 20)}, "the header extension has 10"),
    ],
)
def test_an_extension_that_cannot_be_is_damage(
    tmp_path: Path, cache: Path, records: dict[str, str], message: str
) -> None:
    text = refused(cache, str(write_extended(tmp_path / "a.tar", records)))
    assert "a.tar is damaged at byte" in text and "after 0.jpg: " + message in text


@pytest.mark.parametrize(("kind", "message"), [(b"S", "1.jpg is a sparse file"), (b"L", "the header extension has")])
def test_what_gnu_tar_has_of_its_own_is_damage_where_it_cannot_be(
    tmp_path: Path, cache: Path, kind: bytes, message: str
) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": bytes(2 << 20)})
    assert f"is damaged at byte 1024, after 0.jpg: {message}" in refused(cache, header(path, 1024, kind=kind))


def test_files_named_with_dots_are_told_of(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", {f"cat.{n}.jpg": b"" for n in range(101)})
    assert len(read(cache, str(path)).splits["train"].column_names) == 102
    monkeypatch.setattr("mmtrain.data.sources.tar_shard._MAX_ENDINGS", 100)
    message = refused(tmp_path / "other", str(path))
    assert "101 different endings, such as 0.jpg, 1.jpg, 2.jpg" in message and "without other dots" in message


def test_names_that_no_column_has_are_no_columns(tmp_path: Path, cache: Path) -> None:
    long = {"k" * 10**5: 1, "score": 2}
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", f"0.{'e' * 300}": b"y", "0.json": long})
    assert read(cache, str(path)).splits["train"].column_names == ["id", "jpg", "score"]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"caption": "half \\ud83d"}', '{"caption":' * 200 + "1" + "}" * 200])
@pytest.mark.parametrize("first", [True, False])
def test_json_that_cannot_be_read_sets_its_sample_aside(tmp_path: Path, cache: Path, text: str, first: bool) -> None:
    good = {"caption": "a red cat"}
    path = write_tar(tmp_path / "a.tar", {"0.json": text if first else good, "1.json": good if first else text})
    table = read(cache, str(path)).splits["train"]
    assert table.column_names == ["id", "caption"]
    assert list(table["caption"]) == ([None, "a red cat"] if first else ["a red cat", None])
    with pytest.raises(SampleError, match=r"a\.tar: \d\.json: is not JSON: (nested|it holds half of a surrogate)"):
        table[0 if first else 1]["caption"]


def test_a_text_of_parquet_that_is_not_utf_8_sets_its_row_aside(tmp_path: Path, cache: Path) -> None:
    texts = pa.array([b"a cat", b"\xff\xfe", b"a dog"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    pq.write_table(pa.table({"caption": column}), tmp_path / "a.parquet")
    table = read(cache, str(tmp_path / "a.parquet")).splits["train"]
    assert list(table["caption"]) == ["a cat", None, "a dog"]
    with pytest.raises(SampleError, match=r"a\.parquet: caption of row 1: cannot be read: UnicodeDecodeError"):
        table[1]["caption"]


def test_one_broken_sample_is_set_aside_by_its_name_and_the_others_go_on(tmp_path: Path, cache: Path) -> None:
    names = draw_pictures(tmp_path, 6)
    members: dict[str, Content] = {}
    for n, name in enumerate(names):
        members |= {f"{n}.png": (tmp_path / name).read_bytes(), f"{n}.json": {"caption": "a red cat"}}
    members["3.json"] = "{broken"
    write_tar(tmp_path / "a.tar", members)
    tables = read(cache, str(tmp_path / "a.tar"))
    table = tables.splits["train"]
    with pytest.raises(SampleError, match=r"a\.tar: 3\.json: is not JSON"):
        table[3]["caption"]
    assert list(table["caption"]).count(None) == 1
    parts: dict[str, Any] = {
        "folder": tables.folder,
        "columns": {"image": "png", "text": "caption"},
        "inputs": {"image": image_input(max_pixels=10**6), "text": fitted_text_input()},
        "targets": {},
        "seed": 0,
    }
    train = TrainSplit(table, order=tables.order, **parts)
    samples = [train[0, position] for position in range(6)]
    (bad,) = [bad for s in samples for bad in s.bad if bad.row == 3]
    assert (bad.id, bad.file) == ("a/3", "a.tar: 3.json")
    evaluated = [EvalSplit(ShardTable(table._shards, window=1, fit_rows=None), **parts)[0, p] for p in range(6)]
    assert [len(s.bad) for s in evaluated] == [0, 0, 0, 1, 0, 0]


def test_a_shard_that_shrinks_after_it_was_indexed_breaks_only_its_samples(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 1000, "1.jpg": b"y" * 1000})
    table = read(cache, str(path)).splits["train"]
    cut(path, 2448)
    assert table[0]["jpg"] == b"x" * 1000
    with pytest.raises(SampleError, match=r"a\.tar: 1\.jpg: is truncated: 400 of 1000 bytes at byte 2048"):
        table[1]["jpg"]


# ---------------------------------------------------------------- parquet


def test_parquet_files_are_read_by_row_group(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "a.parquet", parquet_rows(0, 23), group=5)
    write_parquet(tmp_path / "b.parquet", parquet_rows(23, 30), group=4)
    tables = read(cache, [str(tmp_path / "{a,b}.parquet")])
    table = tables.splits["train"]
    assert table.block_sizes.tolist() == [5, 5, 5, 5, 3, 4, 3]
    rows = parquet_rows(0, 30)
    for row in (29, 0, 4, 5, 22, 23, 28, 1):
        shard, number = ("a", row) if row < 23 else ("b", row - 23)
        assert dict(table[row]) == {"id": f"{shard}/{number}", **rows[row]}
    assert list(table["caption"]) == [row["caption"] for row in rows]
    assert [table[row]["n"] for row in range(30)] == list(range(30))


def test_a_column_id_is_the_id(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"id": f"r{n}", "caption": "c"} for n in range(4)], group=2)
    table = read(cache, str(tmp_path / "a.parquet")).splits["train"]
    assert list(table["id"]) == [table[row]["id"] for row in range(4)] == ["r0", "r1", "r2", "r3"]


def test_only_the_columns_that_are_asked_for_are_read_each_group_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "a.parquet", parquet_rows(0, 40), group=4)
    tables = read(cache, str(tmp_path / "a.parquet"), window=3)
    table, order = tables.splits["train"], tables.order
    assert isinstance(order, BlockOrder)
    reads: list[tuple[int, tuple[str, ...]]] = []
    really = pq.ParquetFile.read_row_group

    def counted(self: Any, number: int, columns: Any, **options: Any) -> Any:
        reads.append((number, tuple(columns)))
        return really(self, number, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    seen = [table[order.row(p, seed=3, epoch=1)]["n"] for p in range(40)]
    assert sorted(seen) == list(range(40)) != seen
    assert sorted(reads) == [(group, ("n",)) for group in range(10)], "a window's groups stay in memory"


def test_a_parquet_file_that_cannot_be_read_is_named(tmp_path: Path, cache: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", parquet_rows(0, 5), group=5)
    cut(path, path.stat().st_size - 3)
    assert "a.parquet cannot be read as parquet" in refused(cache, str(path))
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "b.parquet")
    assert "b.parquet has no rows" in refused(cache, str(tmp_path / "b.parquet"))


def test_a_damaged_row_group_breaks_only_its_samples(tmp_path: Path, cache: Path) -> None:
    noise = np.random.default_rng(0)
    rows = [{"caption": noise.bytes(2000).hex()} for _ in range(8)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[1000:2000] = bytes(1000)
    path.write_bytes(raw)
    table = read(cache, str(path)).splits["train"]
    with pytest.raises(SampleError, match=r"a\.parquet: caption of row group 0 cannot be read"):
        table[0]["caption"]
    assert table[5]["caption"] == rows[5]["caption"]


# --------------------------------------------------------------- patterns


def test_patterns_and_splits(tmp_path: Path, cache: Path) -> None:
    folder = write_tars(tmp_path / "tars")
    write_parquet(folder / "val.parquet", parquet_rows(0, 5), group=2)
    tables = read(cache, [f"{folder}/train-00[01].tar", f"{folder}/train-001.tar"], val=f"{folder}/val.parquet")
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 11, "val": 5}
    assert tables.names["val"] == f"{folder}/val.parquet"
    assert tables.folder == folder
    assert read(cache, None, test=f"{folder}/val.parquet").order is None
    assert f"{folder}/train-003.tar: No such file" in refused(cache, f"{folder}/train-{{000..003}}.tar")
    assert "data.train" in refused(cache, f"{folder}/nothing-*.tar")
    assert "neither a train, a val nor a test shard" in refused(cache, None)
    (folder / "a.zip").write_text("")
    assert "a.zip is not a shard" in refused(cache, f"{folder}/a.zip")
    assert "window = 0" in refused(cache, f"{folder}/*.tar", window=0)


def test_shards_with_one_name_in_two_folders_have_different_ids(tmp_path: Path, cache: Path) -> None:
    for folder in ("a", "b"):
        write_tar(tmp_path / folder / "0.tar", {"x.txt": folder})
    table = read(cache, str(tmp_path / "*" / "0.tar")).splits["train"]
    assert list(table["id"]) == ["a/0/x", "b/0/x"]


def test_vocabularies_are_learned_from_so_many_rows_evenly_spaced(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "a.parquet", parquet_rows(0, 100), group=10)
    tables = read(cache, str(tmp_path / "a.parquet"), val=str(tmp_path / "a.parquet"), fit_rows=8)
    assert list(tables.splits["train"]["n"]) == [0, 12, 25, 37, 50, 62, 75, 87]
    assert list(tables.splits["val"]["n"]) == list(range(100)), "evaluation sees all"


# --------------------------------------------------------------- processes


def _ask(table: ShardTable, rows: list[int], answers: Any) -> None:
    answers.put([(table[row]["id"], table[row]["score"], len(table[row]["jpg"])) for row in rows])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_read_one_table_at_once(tmp_path: Path, cache: Path, method: Any) -> None:
    table = read(cache, str(write_tars(tmp_path / "tars") / "*.tar")).splits["train"]
    table[0]["jpg"]  # open before the fork
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    rows = [*range(16)] * 20
    workers = [context.Process(target=_ask, args=(table, rows, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    wanted = [(table[row]["id"], table[row]["score"], len(table[row]["jpg"])) for row in rows]
    assert [answers.get(timeout=60) for _ in workers] == [wanted, wanted]
    for worker in workers:
        worker.join()


def test_many_shards_need_few_open_files(tmp_path: Path, cache: Path) -> None:
    for n in range(60):
        write_tar(tmp_path / "many" / f"{n:02d}.tar", {"a.txt": str(n)})
    table = read(cache, str(tmp_path / "many" / "*.tar")).splits["train"]
    before = len(list(Path("/dev/fd").iterdir()))
    rows = [table[row] for row in range(60)]
    assert [row["txt"] for row in rows] == [str(n) for n in range(60)], "a row can be read when its shard was closed"
    assert len(list(Path("/dev/fd").iterdir())) - before <= 16
    assert len(pickle.dumps(table)) < 40_000


# ------------------------------------------------------------------ remote


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder, by ranges too; fails once for each path in `failing`."""

    requests: list[tuple[str, int]]
    failing: set[str]

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        path = Path(self.directory) / name
        if name in self.failing:
            self.failing.discard(name)
            self.send_error(503)
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(requested[1]) if requested else 0
        last = min(int(requested[2]) if requested and requested[2] else len(content), len(content) - 1)
        self.requests.append((name, last - first + 1))
        self.send_response(206 if requested else 200)
        self.send_header("Accept-Ranges", "bytes")
        if requested:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[Ranges]]]:
    handler = type("Handler", (Ranges,), {"requests": [], "failing": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "far"))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", handler
        http.shutdown()
        thread.join()


def test_remote_parquet_is_read_by_ranges(tmp_path: Path, cache: Path, server: Any) -> None:
    address, handler = server
    noise = np.random.default_rng(0)
    rows = [{"image": noise.bytes(20_000), "caption": f"c{n}"} for n in range(60)]
    path = write_parquet(tmp_path / "far" / "a.parquet", rows, group=10)
    table = read(cache, f"{address}/a.parquet").splits["train"]
    assert list(table["caption"]) == [row["caption"] for row in rows]
    assert table[37]["image"] == rows[37]["image"]
    assert table[37]["id"] == "a/37"
    assert sum(size for _, size in handler.requests) < path.stat().st_size, "one of six groups of pictures was needed"


def test_remote_tars_are_read_in_place(tmp_path: Path, cache: Path, server: Any) -> None:
    address, _ = server
    write_tars(tmp_path / "far")
    near = read(cache, str(tmp_path / "far" / "train-{000..002}.tar")).splits["train"]
    far = read(cache, f"{address}/train-{{000..002}}.tar").splits["train"]
    assert [dict(far[row]) for row in range(16)] == [dict(near[row]) for row in range(16)]


def test_a_server_that_stumbles_is_asked_again(
    tmp_path: Path, cache: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_places, "WAITS", (0.01, 0.01))
    address, handler = server
    write_tar(tmp_path / "far" / "a.tar", {"0.txt": "near"})
    table = read(cache, f"{address}/a.tar").splits["train"]
    handler.failing.add("a.tar")
    assert table[0]["txt"] == "near"


def test_a_remote_shard_that_is_not_there_is_named(
    tmp_path: Path, cache: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_places, "WAITS", ())
    (tmp_path / "far").mkdir()
    address, _ = server
    assert f"{address}/b.parquet: the file does not exist" in refused(cache, f"{address}/b.parquet")
    assert "nosuch://x/b.tar cannot be opened" in refused(cache, "nosuch://x/b.tar")
    for chained in ("reference::https://x/a.tar", "simplecache::reference://a.json::file:///a.tar"):
        assert "a reference file system inserts templates" in refused(cache, chained)


# -------------------------------------------------------------- the command


def test_a_pattern_with_braces_is_written_in_quotes(tmp_path: Path) -> None:
    from hydra.utils import instantiate

    from mmtrain.build import compose

    pattern = f"{write_tars(tmp_path / 'tars')}/train-{{000..002}}.tar"
    cfg = compose(["data=shards", f"data.train='{pattern}'", f"data.source.cache_dir={tmp_path}"])
    tables = instantiate(cfg.data.source, _convert_="all")()
    assert len(tables.splits["train"]) == len(tables.order) == 16


# ------------------------------------------------------------------ what a resumed run compares

COMPARED = ["id", "jpg", "txt", "cls", "score", "label", "caption", "image"]
MEDIA = ["jpg", "image"]


def compared(cache: Path, pattern: Any) -> dict[str, Any]:
    return digest_rows(read(cache, pattern).splits["train"], COMPARED, media=MEDIA, folder=Path())


def test_the_place_of_shards_and_of_their_index_does_not_matter(tmp_path: Path, cache: Path) -> None:
    calm = compared(cache, str(write_tars(tmp_path / "a") / "*.tar"))
    assert calm["count"] == 16 and set(calm["columns"]) == {"id", "txt", "cls", "score"}
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert compared(tmp_path / "other cache", str(tmp_path / "b" / "*.tar")) == calm


def test_what_changes_in_a_tar_is_noticed(tmp_path: Path, cache: Path) -> None:
    pattern = str(write_tars(tmp_path) / "*.tar")
    calm = compared(cache, pattern)
    tar = tmp_path / "train-001.tar"
    members = {name: content for n in range(7) for name, content in sample(1, n).items()}

    def differing(changed: Mapping[str, Content]) -> set[str]:
        write_tar(tar, changed)
        now = compared(cache, pattern)
        columns = {f"columns.{c}" for c in calm["columns"] if calm["columns"][c] != now["columns"][c]}
        return columns | {key for key in ("count", "shards") if calm[key] != now[key]}

    assert differing(members) == set()
    assert differing(members | {"0004.cls": "7"}) == {"columns.cls"}
    assert differing(members | {"0004.txt": "caption 1 5\n"}) == {"columns.txt"}
    assert differing(members | {"0004.jpg": b"another picture"}) == {"shards"}
    assert {"shards", "columns.id"} <= differing(dict(reversed(members.items())))
    assert differing({name: members[name] for name in list(members)[:-4]}) >= {"count", "shards"}
    assert differing(members | {"0004.json": "no json"}) == {"shards", "columns.score"}
    write_tar(tar, members)
    tar.rename(tmp_path / "train-001b.tar")
    assert compared(cache, pattern)["shards"] != calm["shards"]


def test_what_changes_in_a_parquet_file_is_noticed(tmp_path: Path, cache: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", parquet_rows(0, 9), group=4)
    calm = compared(cache, str(path))
    rows = parquet_rows(0, 9)
    rows[5]["label"] = 0
    write_parquet(path, rows, group=4)
    now = compared(cache, str(path))
    assert calm["columns"]["label"] != now["columns"]["label"]
    assert calm["columns"]["caption"] == now["columns"]["caption"]
    write_parquet(path, parquet_rows(0, 9), group=3)
    assert compared(cache, str(path))["shards"] != calm["shards"], "the order of training follows from the row groups"


def test_paths_and_json_in_the_place_of_media_are_compared(tmp_path: Path, cache: Path) -> None:
    rows = [{"image": f"{n}.png", "jpg": [f"{n}.png"], "label": n % 3} for n in range(9)]
    path = write_parquet(tmp_path / "a.parquet", rows, group=4)
    calm = compared(cache, str(path))["columns"]
    rows[5] |= {"image": "6.png", "jpg": ["6.png"]}
    write_parquet(path, rows, group=4)
    now = compared(cache, str(path))["columns"]
    assert {c for c in calm if calm[c] != now[c]} == {"image", "jpg"}
    tar = write_tar(tmp_path / "a.tar", {"0.txt": "a", "0.json": {"image": [1.0, 2.0]}})
    calm = compared(cache, str(tar))["columns"]
    write_tar(tar, {"0.txt": "a", "0.json": {"image": [1.0, 3.0]}})
    assert compared(cache, str(tar))["columns"]["image"] != calm["image"]


def test_of_many_shards_some_are_read(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_BLOCKS_COMPARED", 3)
    monkeypatch.setattr(shards, "NUM_SAMPLED", 6)
    table = read(cache, str(write_tars(tmp_path, (3,) * 9) / "*.tar")).splits["train"]
    assert table._rows_compared() == [0, 2, 12, 14, 24, 26]
    opened: list[str] = []
    monkeypatch.setattr(table, "_opened", lambda shard: (opened.append(shard.place.path), TarShard(*shard[:2]))[1])
    digest_rows(table, COMPARED, media=MEDIA, folder=Path())
    assert [path[-7:] for path in opened] == ["000.tar", "004.tar", "008.tar"]


def test_of_remote_shards_the_first_rows_are_read(tmp_path: Path, cache: Path, server: Any) -> None:
    address, handler = server
    noise = np.random.default_rng(0)
    rows = [{"image": noise.bytes(100_000), "caption": f"c{n}", "label": n % 3} for n in range(60)]
    write_parquet(tmp_path / "far" / "a.parquet", rows, group=10)
    table = read(cache, f"{address}/a.parquet").splits["train"]
    calm = digest_rows(table, COMPARED, media=MEDIA, folder=Path())
    assert set(calm["columns"]) == {"id", "caption", "label"} and table._rows_compared() == list(range(8))
    assert sum(size for _, size in handler.requests) < 5 * 100_000, "no picture was needed"


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path, cache: Path) -> None:
    write_tar(tmp_path / "out" / "a.tar", {"0.txt": "near"})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.tar").symlink_to("../out/a.tar")
    result = read(cache, str(tmp_path / "root" / "*.tar"))
    with pytest.raises(ConfigError, match=r"root/a\.tar leads to .*/out/a\.tar, which is outside of the data folder"):
        tables_of(result, WHOLE, restrict_paths=True)
    assert len(tables_of(result, WHOLE, restrict_paths=False).splits["train"]) == 1
    tables_of(read(cache, str(tmp_path / "out" / "*.tar")), WHOLE, restrict_paths=True)


def test_a_pipe_is_no_shard(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    assert "is not a regular file" in refused(cache, str(tmp_path / "*.tar"))


def test_shards_on_a_server_read_no_file_of_this_machine(
    tmp_path: Path, cache: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").touch()
    write_tar(tmp_path / "far" / "a.tar", {"0.json": '{"jpg": "secret.txt"}'})
    result = tables_of(read(cache, f"{server[0]}/a.tar"), WHOLE, restrict_paths=True)
    assert result.folder == tmp_path
    with pytest.raises(SampleError, match="its shard is on a server"):
        checked_path(result.folder, result.splits["train"][0]["jpg"])
