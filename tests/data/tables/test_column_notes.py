"""Columns of one meaning, targets among inputs, and columns that nothing reads are reported."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from mmtrain.data.inputs.vector import VectorInput
from mmtrain.data.tables.column_notes import columns_not_read, notes_of_columns
from mmtrain.data.tables.columns import Column
from mmtrain.data.targets.number import Number
from mmtrain.errors import ConfigError

TABLE = {
    "id": ["a", "b", "c"],
    "caption": ["a cat", "a dog", "an ant"],
    "text": ["x", "y", "z"],
    "kind": ["Cat ", "dog", "ant"],
    "label": ["cat", "dog", "ant"],
    "size": [1.0, 2.0, 3.0],
    "age": [3, 2, 1],
}


def notes(columns: dict[str, Column], inputs: list[str], targets: list[str], **wanted: Column) -> list[str]:
    table = Dataset.from_dict(TABLE)
    return list(notes_of_columns(table, columns, wanted, inputs=inputs, targets=targets, where="train.csv"))


def test_two_columns_of_one_meaning() -> None:
    (note,) = notes({"text": "caption", "label": "label"}, ["text"], ["label"])
    assert note.splitlines() == [
        "train.csv: the column caption is read as text, and text is not read",
        "    if it is meant: data.columns.text=text",
    ]
    assert notes({"text": "caption", "label": "label"}, ["text"], ["label"], text="caption") == []
    assert notes({"text": "caption", "caption": "text"}, ["text"], []) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"vector": ["size", "age"], "number": "size"},
            "the column size is the target number and is in the input vector",
        ),
        ({"text": "label", "label": "label"}, "the column label is the target label and is in the input text"),
        ({"text": "kind", "label": "label"}, "the input text is the target label in 3 of 3 rows"),
        ({"vector": "size", "number": "age"}, None),
        ({"text": "caption", "label": "label"}, None),
    ],
)
def test_a_target_among_the_inputs(columns: dict[str, Column], message: str | None) -> None:
    name, target = columns
    result = notes(columns, [name], [target], **columns)
    assert len(result) == (message is not None)
    assert message is None or (message in result[0] and result[0].startswith("WARNING") and "fix: " in result[0])


def test_columns_that_nothing_reads() -> None:
    table = Dataset.from_dict(TABLE)
    assert columns_not_read(table, {"vector": ["size", "age"], "text": "caption"}) == ["text", "kind", "label"]


@pytest.mark.parametrize("part", [VectorInput(scale="standard"), Number(scale="standard")])
def test_a_column_of_words_is_no_column_of_numbers(part: Any) -> None:
    with pytest.raises(ConfigError, match="3 of 5 rows of the training split are no numbers: such as red"):
        part.fit(["1", "2", "red", "blue", "red"], Path())
    part.fit(["1", "2", "red"], Path())


@pytest.mark.parametrize("part", [VectorInput(scale="standard"), Number(scale="standard")])
@pytest.mark.parametrize(
    ("cells", "is_clear"),
    [
        (["3,15", "2,5", None], False),
        (["3,15", "4", ""], False),
        (["1,297.5", "950"], False),
        (["1,234,567", "1"], False),
        (["3, 15", "2, 5"], True),
        (["1.5,2.5", "1,2"], True),
        (["1,2,3", "4,5,6"], True),
        (["[3,15]", "[2,5]"], True),
        (["3.15", "4"], True),
        ([[1, 2], [3, 4]], True),
    ],
)
def test_text_that_is_one_number_or_several_is_refused(part: Any, cells: list[Any], is_clear: bool) -> None:
    if is_clear:
        part.fit(cells, Path())
        return
    with pytest.raises(ConfigError, match="in row 1 of training can be one number or several"):
        part.fit(cells, Path())
