"""Digests of rows: equal for equal values however they are stored, and another one for any cell that is another."""

import csv
import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets
from PIL import Image

from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables import row_digest
from mmtrain.data.tables.row_digest import RowFacts, digest_cells, digest_files, digest_rows
from tests.data.parts import ALL, write_rows

ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "caption": f"a cat, number {n}" if n % 5 else None, "label": "cat" if n % 2 else "dog"}
    for n in range(23)
]
READ = ["id", "caption", "label"]
WORDS = pa.dictionary(pa.int8(), pa.string())


def facts(table: Any, *columns: str, media: tuple[str, ...] = (), folder: Path = Path("/data")) -> RowFacts:
    return digest_rows(table, columns or READ, media=media, folder=folder)


def table(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows)


def cells(*values: Any, type: pa.DataType | None = None) -> str | None:
    """The digest of a column of these cells."""
    result = digest_rows(Dataset(pa.table({"x": pa.array(values, type)})), ["x"], media=[], folder=Path())
    return result.get("columns", {}).get("x")


# ------------------------------------------------------------------ equal


def test_the_digest_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A run is resumed elsewhere: who changes these values makes every resumed run be refused."""
    number = {"score": [None, 1, 2.5], "tags": [["a"], [], ["b", "c"]], "file": [b"abc", None, b"d" * 2000]}
    assert facts(Dataset.from_dict(number), "score", "tags", "file") == {
        "count": 3,
        "columns": {"score": "f5649fa558830f5d", "tags": "f71d57ec0c9a79cc", "file": "bc48a62e51df20af"},
    }
    assert facts(table(ROWS))["columns"] == {
        "id": "50939f7a9ebb7a45",
        "caption": "eea90f391f82c326",
        "label": "1569c737da2ad73e",
    }


def test_the_format_of_the_file_does_not_matter(tmp_path: Path) -> None:
    write_rows(tmp_path / "jsonl" / "train.jsonl", ROWS)
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        (tmp_path / ending).mkdir()
        with (tmp_path / ending / f"train.{ending}").open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([READ, *(row.values() for row in ROWS)])
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "parquet" / "train.parquet", row_group_size=4)
    results = [facts(read_folder(tmp_path / kind, ALL).splits["train"]) for kind in ("jsonl", "csv", "tsv", "parquet")]
    assert results[0]["count"] == 23 and set(results[0]["columns"]) == set(READ)
    assert results[1] == results[2] == results[3] == results[0]


def test_how_a_table_came_to_have_its_rows_does_not_matter() -> None:
    full = table(ROWS)
    backwards = table(ROWS[::-1]).select(range(22, -1, -1))
    pieces = concatenate_datasets([table(ROWS[:7]), table(ROWS[7:8]), table(ROWS[8:])])
    some = concatenate_datasets([table(ROWS[20:]), table(ROWS)]).select(range(3, 26))
    mixed = concatenate_datasets([table(ROWS[1::2]), table(ROWS[::2])])
    zipped = mixed.select([n // 2 if n % 2 else 11 + n // 2 for n in range(23)])
    assert facts(backwards) == facts(pieces) == facts(some) == facts(zipped) == facts(full)


def test_nested_cells_are_found_wherever_they_are_in_their_table() -> None:
    rows = [{"turns": [{"role": "a", "text": f"{n}"}] * (n % 3), "box": [n, n / 2]} for n in range(12)]
    pieces = concatenate_datasets([table(rows[8:]), table(rows[:8])]).select([*range(4, 12), *range(4)])
    assert facts(pieces, "turns", "box") == facts(table(rows), "turns", "box")
    assert facts(table(rows[::-1]), "turns")["columns"] != facts(table(rows), "turns")["columns"]


@pytest.mark.parametrize(
    "same",
    [
        [cells(1, 2, None), cells(1.0, 2.0, None), cells(1, 2, None, type=pa.int8()), cells(1.0, 2.0, float("nan"))],
        [cells(1.5, 0), cells(1.5, -0.0, type=pa.float32()), cells(1.5, 0, type=pa.float16())],
        [cells("a", None), cells("a", ""), cells("a", None, type=pa.large_string())],
        [cells("a", "b"), cells("a", "b", type=pa.string_view()), cells("a", "b", type=WORDS)],
        [cells(["a"], []), cells(["a"], None), cells(["a"], None, type=pa.large_list(pa.string()))],
        [cells([1, 2], [3, 4]), cells([1, 2], [3, 4], type=pa.list_(pa.float32(), 2))],
        [cells({"a": 1}), cells({"a": 1, "b": None}), cells({"b": None, "a": 1.0})],
        [cells("x.png"), cells({"bytes": None, "path": "x.png"})],
        [cells(b"x"), cells({"bytes": b"x", "path": None}), cells({"bytes": b"x", "path": "/tmp/x.png"})],
        [None, cells(None, None), cells("", None), cells([], None), cells(float("nan"), None), cells({"a": None})],
    ],
)
def test_equal_values_have_one_digest(same: list[str | None]) -> None:
    assert len(set(same)) == 1


def test_a_column_that_is_missing_is_one_of_empty_cells() -> None:
    assert facts(table([{"id": "1", "caption": None}] * 3)) == facts(table([{"id": "1"}] * 3))


def test_where_the_folder_is_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"one")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    forms: list[Callable[[Path], Any]] = [
        lambda folder: "x.png",
        lambda folder: str(folder / "x.png"),
        lambda folder: {"bytes": None, "path": str(folder / "x.png")},
        lambda folder: str(folder.resolve() / "x.png"),
    ]
    results = [
        facts(table([{"image": form(folder)}]), "image", media=("image",), folder=folder)
        for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "c")
        for form in forms
    ]
    assert results[0]["files"]["image"].startswith("1 of 1 files, 3 bytes (")
    assert all(one == results[0] for one in results)


def test_a_path_that_begins_with_the_name_of_the_folder_is_one_inside_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    inside = table([{"image": "data/x.png"}])
    near, far = (
        facts(inside, "image", media=("image",), folder=folder) for folder in (Path("data"), tmp_path / "data")
    )
    assert near == far != facts(table([{"image": "x.png"}]), "image", media=("image",), folder=Path("data"))


# ------------------------------------------------------------------ different


@pytest.mark.parametrize("row", [0, 11, 22])
@pytest.mark.parametrize("column", READ)
def test_every_cell_counts(row: int, column: str) -> None:
    changed = [{**cell, column: f"{cell[column]}."} if n == row else cell for n, cell in enumerate(ROWS)]
    before, after = facts(table(ROWS))["columns"], facts(table(changed))["columns"]
    assert {name for name in READ if before[name] != after[name]} == {column}


def test_the_order_of_the_rows_and_their_number_count() -> None:
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    before, after = facts(table(ROWS)), facts(table(swapped))
    assert after["count"] == before["count"] and all(after["columns"][c] != before["columns"][c] for c in READ)
    assert facts(table([*ROWS, ROWS[0]]))["count"] == 24
    assert facts(table([{"caption": None}] * 3)) == {"count": 3}


@pytest.mark.parametrize(
    "different",
    [
        [cells("ab", "c"), cells("a", "bc"), cells("abc", ""), cells("", "abc"), cells("abc")],
        [cells(["a"], ["b", "c"]), cells(["a", "b"], ["c"]), cells(["a", "b", "c"], []), cells(["ab"], ["c"])],
        [cells(0, None), cells(None, 0), cells(0, 0), cells(0.5, 0), cells(2**53, 0), cells(2**53 + 1, 0)],
        [cells(False, None), cells(None, False), cells(True, None), cells(1, None)],
        [cells({"a": "x", "b": "y"}), cells({"a": "y", "b": "x"}), cells({"a": "x"}), cells({"b": "x"})],
        [cells(b"one"), cells(b"two"), cells(b"three"), cells("one")],
        [cells(datetime.date(2026, 1, 1)), cells(datetime.date(2026, 1, 2))],
        [cells(float("inf")), cells(float("-inf")), cells(1e300), cells(2.0**63)],
    ],
)
def test_different_values_have_different_digests(different: list[str | None]) -> None:
    assert len(set(different)) == len(different)


def test_of_bytes_the_size_and_the_first_kib_count() -> None:
    long = b"x" * 5000
    assert cells(long) != cells(long[:-1]) and cells(long) != cells(b"y" + long[1:])
    assert cells(long) == cells(long[:-1] + b"y")


def test_of_a_large_column_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_digest, "_MOST_BYTES", 100)
    monkeypatch.setattr(row_digest, "NUM_SAMPLED", 5)

    def with_other(row: int) -> list[dict[str, Any]]:
        return [{**cell, "caption": "other"} if n == row else cell for n, cell in enumerate(ROWS)]

    calm = facts(table(ROWS))
    noticed = [n for n in range(23) if facts(table(with_other(n))) != calm]
    assert noticed == [0, 5, 11, 16, 22]
    assert facts(table(ROWS[::-1]).select(range(22, -1, -1))) == calm
    assert facts(table([*ROWS[:-1], ROWS[0], ROWS[-1]]))["count"] == 24


# ------------------------------------------------------------------ files


def test_files_count_by_size_and_first_kib(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 3000)

    def now() -> str:
        result = digest_rows(table([{"v": ["a", "b"]}, {"v": ["c", "nothere"]}]), ["v"], media=["v"], folder=tmp_path)
        files: str = result["files"]["v"]
        return files

    calm = now()
    assert calm.startswith("3 of 4 files, 9000 bytes (")
    (tmp_path / "b").write_bytes(b"b" * 3001)
    assert now().startswith("3 of 4 files, 9001 bytes (")
    (tmp_path / "b").write_bytes(b"x" + b"b" * 2999)
    assert now().startswith("3 of 4 files, 9000 bytes (") and now() != calm
    (tmp_path / "b").unlink()
    assert now().startswith("2 of 4 files, 6000 bytes (")


def test_a_pipe_is_not_opened_and_a_name_that_is_none_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = digest_files(["pipe", "a\0b", "x" * 5000, ""], tmp_path)
    assert result is not None and result.startswith("0 of 4 files, 0 bytes (")
    assert digest_files([], tmp_path) is None


def test_of_many_files_a_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_digest, "NUM_SAMPLED", 10)
    result = digest_files((f"{n}.png" for n in range(1000)), tmp_path)
    assert result is not None and result.startswith("0 of 10 files")


def test_text_is_not_taken_for_a_path(tmp_path: Path) -> None:
    assert "files" not in facts(table(ROWS), folder=tmp_path)


# ------------------------------------------------------------------ other tables


class OwnTable:
    """What `Tables` may hold in addition to a `datasets.Dataset`."""

    column_names = ("caption", "label")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]


def test_a_table_of_another_kind_is_compared_by_its_cells() -> None:
    calm = facts(OwnTable(ROWS))
    assert calm == facts(OwnTable([dict(row) for row in ROWS])) and set(calm["columns"]) == {"caption", "label"}
    other = facts(OwnTable([{**row, "label": "ant"} for row in ROWS]))
    assert other["columns"]["caption"] == calm["columns"]["caption"]
    assert other["columns"]["label"] != calm["columns"]["label"]


def test_cells_of_any_kind_have_a_digest() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep, 1]
    picture = Image.new("RGB", (4, 4), "red")
    kinds = [
        *(1.5, 7, True, "a", b"a", ["a", None], {"a": 1}, np.arange(3), picture, datetime.date(2026, 1, 1), "\ud83d"),
        *(deep, object()),
    ]
    digests = [digest_cells([kind]) for kind in kinds]
    assert len(set(digests)) == len(digests) and None not in digests
    assert digest_cells([3.0]) == digest_cells([3]) and digest_cells([object()]) == digest_cells([object()])
    assert digest_cells([Image.new("RGB", (4, 4), "blue")]) != digest_cells([picture])
    assert digest_cells([None, "", float("nan"), [], {"bytes": None, "path": None}]) is None
    assert digest_cells([{"b": 1, "a": 2}]) == digest_cells([{"a": 2, "b": 1, "c": None}])
