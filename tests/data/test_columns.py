"""Which column holds what, and what an empty cell is."""

from typing import Any

import pytest

from mmtrain.data.columns import cell_of, find_columns
from mmtrain.errors import ConfigError


def columns_of(there: tuple[str, ...], wanted: dict[str, Any]) -> dict[str, Any]:
    return find_columns(there, wanted, where="train.csv")


def test_columns_are_found_by_their_usual_names() -> None:
    wanted = {"image": None, "text": None, "label": None, "speed": None}
    assert columns_of(("picture", "captions", "class", "id"), wanted) == {
        "image": "picture",
        "text": "captions",
        "label": "class",
    }
    assert columns_of(("title", "caption", "label", "speed"), wanted) == {
        "text": "caption",
        "label": "label",
        "speed": "speed",
    }
    assert columns_of(("a", "b"), wanted) == {}


def test_a_named_column_goes_before_a_usual_one() -> None:
    assert columns_of(("caption", "name"), {"text": "name"}) == {"text": "name"}


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        columns_of(("image", "caption"), {"image": None, "text": "captoin"})
    message = str(caught.value)
    assert "data.columns.text = captoin" in message and "image, caption" in message
    assert "set data.columns.text=caption" in message
    with pytest.raises(ConfigError, match=r"set data.columns.label to one of them"):
        columns_of(("image", "caption"), {"label": "xyz"})


def test_several_columns_make_one_vector() -> None:
    assert columns_of(("age", "height", "id"), {"vector": ["age", "height"]}) == {"vector": ["age", "height"]}
    with pytest.raises(ConfigError, match=r"data.columns.vector = heigth, but train.csv has the columns age, height"):
        columns_of(("age", "height"), {"vector": ["age", "heigth"]})
    row = {"age": "3", "height": None, "id": "a"}
    assert cell_of(row, ["age", "height"]) == ["3", None]
    assert cell_of(row, "id") == "a" and cell_of(row, "name") is None and cell_of(row, None) is None
