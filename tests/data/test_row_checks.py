"""What is wrong with the rows of a table is said before any file is opened, with the table and the rows."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from mmtrain.data.row_checks import check_rows
from mmtrain.errors import ConfigError


def check(confine: bool = True, **columns: list[Any]) -> None:
    table = datasets.Dataset.from_dict(columns)
    check_rows(table, "train.csv", {"image": "image"}, Path("/data"), confine=confine)


def test_two_rows_with_one_id_are_named() -> None:
    check(id=["a", "b", None, None, "", ""])
    with pytest.raises(ConfigError, match=r"train\.csv: the rows 2 and 4 have the same id 'b'\n"):
        check(id=["a", "b", "c", "b"])


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "x/../../a.png"])
def test_a_path_that_leads_out_is_named_unless_that_is_allowed(path: str) -> None:
    check(image=["a.png", None, "x/../b.png", "/data/c.png"])
    with pytest.raises(ConfigError, match=r"train\.csv, row 2: the image column image leads out of the folder"):
        check(image=["a.png", path])
    check(confine=False, image=["a.png", path])


def test_a_column_of_bytes_has_no_paths() -> None:
    check(image=[b"../a.png", b"/etc/b.png"])
