"""Large tables made small: which rows are kept, for both kinds of table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from mmtrain.data.order import KeyedOrder
from mmtrain.data.survey.subsample import SubsampledSource, subsample
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError, SampleError
from tests.data.parts import ALL, write_rows


class Table:
    """A table that is not of `datasets`; one of its rows cannot be read."""

    column_names = ("id", "text")
    _fingerprint = "f"

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: Any) -> Any:
        return Row({"id": str(key), "text": f"text {key}"})


class Row(dict[str, str]):
    def get(self, key: str, default: Any = None) -> Any:
        if self["id"] == "4":
            raise SampleError("4", "damaged")
        return super().get(key, default)


def ids(table: Any) -> Iterator[str]:
    return (table[row]["id"] for row in range(len(table)))


def test_rows_are_evenly_spaced() -> None:
    full = datasets.Dataset.from_dict({"id": [str(n) for n in range(10)]})
    assert subsample(full, 10) is full
    assert list(ids(subsample(full, 5))) == list(ids(subsample(Table(), 5))) == ["0", "2", "4", "6", "8"]


def test_a_cell_that_cannot_be_read_is_a_gap_in_its_column() -> None:
    table = subsample(Table(), 5)
    assert list(table["text"]) == ["text 0", "text 2", None, "text 6", "text 8"]
    assert table.column_names == ("id", "text") and table._fingerprint == "f-5"


def test_a_source_of_tables_or_of_a_folder_is_thinned_and_says_how_many_there_were(tmp_path: Path) -> None:
    tables = Tables(splits={"train": Table()}, names={"train": "here"}, folder=tmp_path, order=KeyedOrder(10))
    source = SubsampledSource(lambda: tables, split=ALL, most=3)
    result = source()
    assert (len(result.splits["train"]), source.num_rows, result.order) == (3, {"train": 10}, None)
    write_rows(tmp_path / "train.jsonl", [{"id": str(n)} for n in range(7)])
    source = SubsampledSource(lambda: tmp_path, split=ALL, most=3)
    assert list(ids(source().splits["train"])) == ["0", "2", "4"]
    assert source.num_rows == {"train": 7}
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train.jsonl").symlink_to(tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match="which is outside of the data folder"):
        SubsampledSource(lambda: tmp_path / "root", split=ALL, most=3)()
    assert (
        len(SubsampledSource(lambda: tmp_path / "root", split=ALL, most=3, restrict_paths=False)().splits["train"]) == 3
    )
