"""Faults of the rows of a table are reported before any file is opened, with the table and the rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pytest

from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables.first_rows import Head
from mmtrain.data.tables.row_checks import check_rows
from mmtrain.data.tables.splits import Split
from mmtrain.errors import ConfigError
from tests.data.parts import write_rows

WHOLE = Split(column=None, fractions={"train": 1.0}, group=None)


def check(restrict_paths: bool = True, **columns: list[Any]) -> None:
    table = datasets.Dataset.from_dict(columns)
    check_rows(table, "train.csv", {"image": "image"}, Path("/data"), restrict_paths=restrict_paths)


def test_two_rows_with_one_id_are_named() -> None:
    check(id=["a", "b", None, None, "", ""])
    with pytest.raises(ConfigError, match=r"train\.csv: the rows 2 and 4 have the same id 'b'\n"):
        check(id=["a", "b", "c", "b"])


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "x/../../a.png"])
def test_a_path_that_leads_out_is_named_unless_that_is_allowed(path: str) -> None:
    check(image=["a.png", None, "x/../b.png", "/data/c.png"])
    with pytest.raises(ConfigError, match=r"train\.csv, row 2: the image column image leads out of the folder"):
        check(image=["a.png", path])
    check(restrict_paths=False, image=["a.png", path])


def test_a_column_of_bytes_has_no_paths() -> None:
    check(image=[b"../a.png", b"/etc/b.png"])


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png"])
@pytest.mark.parametrize("form", ["mixed", "several", "of several types"])
def test_a_path_among_files_and_lists_is_named(path: str, form: str, tmp_path: Path) -> None:
    cells: list[Any] = {
        "mixed": [{"bytes": b"..", "path": "../b.png"}, {"bytes": None, "path": path}],
        "several": [["a.png"], ["b.png", path]],
        "of several types": ["a.png", ["b.png", path]],
    }[form]
    if form == "of several types":  # which `datasets` keeps as JSON
        write_rows(tmp_path / "train.jsonl", [{"image": cell} for cell in cells])
        table = read_folder(tmp_path, WHOLE).splits["train"]
    else:
        table = datasets.Dataset.from_dict({"image": cells})
    with pytest.raises(ConfigError, match=r"train\.csv, row 2: the image column image leads out of the folder: "):
        check_rows(table, "train.csv", {"image": "image"}, tmp_path, restrict_paths=True)
    with pytest.raises(ConfigError, match=r"train\.csv, row 2"):
        check_rows(Head([{"image": cell} for cell in cells], ["image"], is_whole=True), "train.csv",
                   {"image": ["image"]}, tmp_path, restrict_paths=True)  # fmt: skip


def test_an_absolute_path_into_a_folder_that_is_a_link_is_inside(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    for folder in ("real", "root"):
        table = datasets.Dataset.from_dict({"image": [str(tmp_path / "real" / "a.png"), str(tmp_path / "root/b.png")]})
        check_rows(table, "train.csv", {"image": "image"}, tmp_path / folder, restrict_paths=True)


def test_a_table_of_which_all_files_are_behind_a_link_is_refused_once(tmp_path: Path) -> None:
    for folder in ("out", "root/in"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").touch()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "out")
    linked = datasets.Dataset.from_dict({"image": [None, "images/a.png", "images/b.png"]})
    with pytest.raises(ConfigError) as caught:
        check_rows(linked, "train.csv", {"image": "image"}, tmp_path / "root", restrict_paths=True)
    assert str(caught.value) == (
        "train.csv, row 2: the image column image leads out of the folder by a link: images/a.png is"
        f" {tmp_path}/out/a.png\n    fix the path, or allow it with data.restrict_paths=false"
    )
    check_rows(linked, "train.csv", {"image": "image"}, tmp_path / "root", restrict_paths=False)
    some = datasets.Dataset.from_dict({"image": ["images/a.png", "in/a.png"]})  # the reader refuses the first
    check_rows(some, "train.csv", {"image": "image"}, tmp_path / "root", restrict_paths=True)


def test_of_a_table_that_reads_a_file_for_each_cell_few_are_looked_at() -> None:
    read: list[int] = []

    class Lazy:
        column_names: ClassVar = ["image"]

        def __init__(self, cell: Any) -> None:
            self.cell = cell

        def __getitem__(self, column: str) -> Iterator[Any]:
            for row in range(10**6):
                read.append(row)
                yield self.cell

    for cell, most in ((b"a picture", 2), ("a.png", 200)):
        check_rows(Lazy(cell), "train.tar", {"image": "image"}, Path("/data"), restrict_paths=True)
        assert len(read) <= most
        read.clear()
