"""One table cut into splits: by a column, by fractions, by groups."""

from collections import Counter
from typing import Any

import datasets
import pytest

from mmtrain.data.tables.splits import AllRows, Split
from mmtrain.errors import ConfigError

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def table(rows: int, **columns: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"n": list(range(rows)), **columns})


def split(**changed: Any) -> Split:
    return Split(**{"column": None, "fractions": FRACTIONS, "group": None} | changed)


@pytest.mark.parametrize("rows", [20, 101, 1000])
def test_fractions_are_met_and_every_row_is_in_one_split(rows: int) -> None:
    result = split().cut(table(rows), "t.csv")
    for name, part in result.items():
        assert abs(len(part) - FRACTIONS[name] * rows) <= 1
    assert sorted(n for part in result.values() for n in part["n"]) == list(range(rows))
    again = split().cut(table(rows), "elsewhere.csv")
    assert {name: part["n"][:] for name, part in again.items()} == {name: part["n"][:] for name, part in result.items()}
    assert result["train"]["n"][:] != list(range(len(result["train"])))


def test_a_fraction_of_nothing_leaves_the_split_out() -> None:
    result = split(fractions={"train": 0.5, "val": 0.5, "test": 0}).cut(table(10), "t.csv")
    assert {name: len(part) for name, part in result.items()} == {"train": 5, "val": 5}


def test_no_split_cuts_through_a_group() -> None:
    groups = [f"g{n % 37}" if n % 5 else None for n in range(400)]
    result = split(group="who").cut(table(400, who=groups), "t.csv")
    seen = Counter(group for part in result.values() for group in set(part["who"]) if group is not None)
    assert set(seen.values()) == {1}
    for name, part in result.items():
        assert abs(len(part) / 400 - FRACTIONS[name]) < 0.04


def test_a_column_can_say_it_in_several_words() -> None:
    words = ["train", "validation", "TEST", "dev", "train", "val"]
    result = split().cut(table(6, split=words), "t.csv")
    assert {name: part["n"][:] for name, part in result.items()} == {"train": [0, 4], "val": [1, 3, 5], "test": [2]}
    named = split(column="part").cut(table(2, part=["train", "test"], split=["x", "y"]), "t.csv")
    assert {name: len(part) for name, part in named.items()} == {"train": 1, "test": 1}


@pytest.mark.parametrize(
    ("changed", "columns", "message"),
    [
        ({}, {"split": ["train", "extra", None]}, "t.csv, row 2: split says 'extra', which is no split"),
        ({"column": "part"}, {}, "data.split.column = part, but t.csv has the columns n"),
        ({"group": "who"}, {}, "data.split.group = who, but t.csv has the columns n"),
        ({}, {}, "t.csv has 3 rows: too few to give val the fraction 0.1"),
    ],
)
def test_what_cannot_be_cut_is_said(changed: dict[str, Any], columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split(**changed).cut(table(3, **columns), "t.csv")


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5}, "split.fractions: 0.5 is not 1"),
        ({"train": 1.0, "dev": 0.0}, "split.fractions.dev is not one of train, val, test"),
        ({"train": 1.5, "val": -0.5}, "split.fractions.val = -0.5"),
    ],
)
def test_fractions_that_are_none_are_refused(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(fractions=fractions)


def test_all_rows_are_predicted_unless_a_column_says_their_splits() -> None:
    rows = AllRows(column=None, fractions={"train": 0.8, "val": 0.1, "test": 0.1}, group=None)
    small = datasets.Dataset.from_dict({"text": ["a", "b"], "fold": [1, 2]})
    assert list(rows.cut(small, "new.csv")) == ["test"]
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "split": ["test", "train"]})
    assert {split: table["text"][:] for split, table in rows.cut(named, "new.csv").items()} == {
        "train": ["b"],
        "test": ["a"],
    }


def test_a_column_of_folds_says_no_splits() -> None:
    split = Split(column=None, fractions={"train": 0.5, "test": 0.5}, group=None)
    table = datasets.Dataset.from_dict({"text": list("abcd"), "fold": ["1", "2", "1", "2"]})
    assert {name: len(part) for name, part in split.cut(table, "a.csv").items()} == {"train": 2, "test": 2}
