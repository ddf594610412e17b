"""Classes that are written in several ways are one, and unusual names are reported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.targets.class_names import notes_of_names
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.multilabel import MultiLabel

E_COMPOSED, E_TWO = "\u00e9", "e\u0301"


def fitted(cells: Sequence[Any]) -> ClassLabel:
    target = ClassLabel()
    target.fit(cells, Path())
    return target


def notes(target: ClassLabel | MultiLabel, cells: Sequence[Any]) -> list[str]:
    return list(notes_of_names("label", target, cells, column="kind", where="train.csv"))


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["red", "red ", " red", "blue", "\u00a0blue"], ["blue", "red"]),
        ([f"caf{E_COMPOSED}", f"caf{E_TWO}", "tea"], [f"caf{E_COMPOSED}", "tea"]),
        (["3", "3.0", 3, 3.0, "4.00", None, "", "nan"], ["3", "3.0", "4.00", "nan"]),  # nan is a word here
        (["3", "3.0", 3, 3.0, "4.00", None, ""], ["3", "4.00"]),
        (["003", "3", "3.0", "-1.0", "0.5"], ["-1.0", "0.5", "003", "3"]),
        (["v3.0", "v3", "3.0"], ["3.0", "v3", "v3.0"]),
        (["Red", "red"], ["Red", "red"]),
        ([7, "007", "7"], ["007", "7"]),
    ],
)
def test_what_is_one_class(cells: list[Any], names: list[str]) -> None:
    target = fitted(cells)
    assert target.known.names == names
    assert all(target.load(cell) is not None for cell in cells if cell not in (None, ""))
    assert not target.unseen(cells)


@pytest.mark.parametrize(("train", "val"), [(["3", "4"], ["3.0", "4.00", 4.0]), (["3.0", "4.0"], ["3", 4, "4.0"])])
def test_whole_numbers_with_a_point_are_known_in_other_splits(tmp_path: Path, train: list[Any], val: list[Any]) -> None:
    target = fitted(train)
    target.save(tmp_path, "label")
    again = ClassLabel()
    again.restore(tmp_path, "label")
    for known in (target, again):
        assert [int(index) for cell in val if (index := known.load(cell)) is not None] == [
            0,
            1,
            0 if len(val) > 2 and val[2] == 3.0 else 1,
        ]
        assert not known.unseen(val)


def test_names_that_a_folder_of_an_earlier_version_holds_are_found() -> None:
    target = ClassLabel()
    target._set(type(target.known)(names=["0.0", "1.0"], counts=[1, 1]))
    assert [int(index) for cell in ("0", "1.0", 1) if (index := target.load(cell)) is not None] == [0, 1, 1]


def test_what_is_reported() -> None:
    cells = ["red", "red ", "Blue", "blue", f"caf{E_COMPOSED}", f"caf{E_TWO}"]
    assert notes(fitted(cells), cells) == [
        "train.csv: the column kind has 2 classes in several spellings, which count as one:"
        r" 'red', 'red '; 'caf\xe9', 'cafe\u0301'",
        "train.csv: the column kind has classes that differ only in upper and lower case, and stay separate:"
        " 'Blue', 'blue'",
    ]
    assert notes(fitted(["a ", "b "]), ["a ", "b "]) == [], "no class is written in two ways"
    lists = ["['a', 'b']", "['a']", "[]"]
    (note,) = notes(fitted(lists), lists)
    assert "lists that are written as text, such as ['a', 'b']" in note and "task=[multilabel]" in note


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["NaN", "red"], "has the classes 'NaN', which often mean a missing value"),
        (["n/a", "None", "red"], "has the classes 'None', 'n/a', which"),
        (["na\u00efve", "Nana", None, ""], None),
        (["01", "1", "2"], "are the same number, and stay separate: '01', '1'"),
        (["1.10", "1.1", "x"], "are the same number, and stay separate: '1.1', '1.10'"),
        (["1e3", "1000", "2"], "are the same number, and stay separate: '1000', '1e3'"),
        ([9007199254740993, 9007199254740992], None),
        (["3", "3.0"], None),  # one class
        (["1", "2", "1-2", "v1"], None),
    ],
)
def test_classes_that_may_be_meant_otherwise_are_reported(cells: list[Any], message: str | None) -> None:
    results = [note for note in notes(fitted(cells), cells) if "several spellings" not in note]
    assert len(results) == (message is not None) and (message is None or message in results[0]), results


@pytest.mark.parametrize(
    ("cells", "separator", "other"),
    [
        (["a,b", "b", "c"], "|", ","),
        (["a;b", "b", "c"], "|", ";"),
        (["a|b", "b"], ",", "|"),
        (["a|b, c", "b"], "|", None),
        (["a", "b"], "|", None),
        (["a,b", "b"], None, None),
    ],
)
def test_another_separator_is_named(cells: list[str], separator: str | None, other: str | None) -> None:
    target = MultiLabel(separator=separator)
    target.fit(cells, Path())
    result = notes(target, cells)
    assert [f"data.targets.label.separator='{other}'" in note for note in result] == ([True] if other else [])
