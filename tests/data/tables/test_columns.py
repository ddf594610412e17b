"""Which column holds what, and what an empty cell is."""

import base64
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmtrain.data.tables.columns import Column, cell_of, content_of, find_columns, typed
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


NAMES = ["caption", " caption", "a b ", "size [/px]", "a,b", "it's", 'say "x"', "a: b", "x=1", "ä#%", "007", "null"]


@pytest.mark.parametrize("column", NAMES)
def test_a_column_that_is_typed_as_advised_is_read_as_it_is(column: str) -> None:
    for columns in ({"text": column}, {"vector": [column, "other"]}):
        (override,) = shlex.split(typed(columns))
        value = OverridesParser.create().parse_override(override).value()
        assert value == next(iter(columns.values()))


@pytest.mark.parametrize(
    ("named", "advised"), [("Race", "race"), (" race", "race"), ("rase", "race"), ("label", "mood")]
)
def test_the_nearest_column_is_advised(named: str, advised: str) -> None:
    likely: dict[str, Column] = {"label": "mood"} if named in ("label", "Race") else {}
    with pytest.raises(ConfigError, match=f"set data.columns.label={advised}$"):
        find_columns(["id", "kind", "race", "mood"], {"label": named}, where="train.csv", likely=lambda: likely)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(300)


@pytest.mark.parametrize(
    ("cell", "content"),
    [
        (base64.b64encode(PNG).decode(), PNG),
        (base64.encodebytes(PNG).decode(), PNG),
        (f"data:image/png;base64,{base64.b64encode(PNG).decode()}", PNG),
        (f"data:audio/wav;codecs=1;base64,{base64.b64encode(b'RIFF').decode()}", b"RIFF"),
        ("iVBORw0KGgo.png", None),
        ("/9j/" + "a" * 300 + ".jpg", None),
        ("data/images/" + "a" * 100 + ".png", None),
        ("data:image/png;base64,what is not base64, at all!", None),
        ({"bytes": None, "path": "a.png"}, "a.png"),
    ],
)
def test_files_in_base64(cell: Any, content: Any) -> None:
    assert content_of(cell) == (cell if content is None else content)
