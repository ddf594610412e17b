"""One class is none to tell apart, and a class for nearly each row is probably not what was meant."""

from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.tables.class_checks import check_classes
from mmtrain.data.targets.label import ClassLabel
from mmtrain.errors import ConfigError


def check(cells: list[Any], **others: list[Any]) -> str | None:
    label = ClassLabel()
    label.fit(cells, Path())
    known = label.known
    return check_classes(
        "label",
        known.names,
        sum(known.counts),
        column="kind",
        where="train.csv",
        others=others,
        without="task=[contrastive]",
    )


def refused(cells: list[Any], **others: list[Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check(cells, **others)
    return str(caught.value)


def names(count: int, prefix: str = "u") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_one_class_alone_is_refused() -> None:
    assert refused(["cat", "cat", None]) == (
        "train.csv: the column kind holds one class alone, 'cat', in 2 rows\n"
        "    name another column by data.columns.label, add rows of another class,"
        " or leave out what learns it: task=[contrastive]"
    )
    assert check(["cat", "dog"]) is None


def test_a_class_for_each_row_that_no_other_table_has_is_refused() -> None:
    assert refused([*names(1200), None], val=names(50, "v"), test=["", None]) == (
        "train.csv: the column kind has 1,200 classes in 1,200 rows, and none of them in val or test\n"
        "    name the column of classes by data.columns.label, or leave out what learns it: task=[contrastive]"
    )


def test_one_example_of_each_class_can_be_meant() -> None:
    """Other tables explain a table of one shot; nothing explains a single table."""
    assert check(names(500), val=["unseen", "u7"]) is None
    note = check(names(500))
    assert note is not None and "has 500 classes in 500 rows: there is nearly nothing to learn a class from" in note


@pytest.mark.parametrize("cells", [names(90), names(400) + names(50), ["a"] * 30 + names(100)])
def test_few_rows_or_some_with_a_class_in_common_are_nothing_to_speak_of(cells: list[str]) -> None:
    assert check(cells, val=["other"]) is None


def test_measurements_are_no_classes() -> None:
    numbers = [f"{n / 7:.3f}" for n in range(40)]
    message = refused(numbers, val=["0.1"])
    assert "40 different numbers in 40 rows: measurements, not classes" in message
    assert "task=[regression] data.columns.number=kind" in message
    assert check([f"{n % 8 / 2}" for n in range(40)]) is None  # grades
