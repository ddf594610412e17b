"""What annotations allow is read from the source, however they are written."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mmtrain.config.constraints import constraints_of

SOURCE = '''
"""Imports nothing that exists: the source is read, not run."""
import annotated_types as at
import typing
from annotated_types import Ge, Gt, Interval, Le, Lt
from typing import Annotated, Any, Literal, Optional, Union
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from annotated_types import Len, MinLen
from nowhere import Unknown
from . import ranges
import nowhere.at as missing
if TYPE_CHECKING:
    from .ranges import Words as Hidden
from .ranges import Width as PixelWidth, Words

Colour = Literal["red", "green"]
TEXT = "no annotation, but a text"
Endless = "Endless"
Small: typing.TypeAlias = "Annotated[int, Ge(1), Le(10 - 1)]"


class Base:
    def __init__(self, *, words: Words, width: PixelWidth) -> None: ...


class Part(Base):
    """Its constructor is inherited."""


class Knobs:
    def __init__(
        self,
        colour: Colour,
        small: Small,
        *,
        seed: Annotated[int, at.Ge(0), Le(2**32 - 1)],
        share: Annotated[float, Interval(gt=0, lt=1)],
        rate: typing.Annotated[float, at.Gt(-1.5)] | None,
        either: Union[Literal["auto"], int],
        maybe: Optional[bool],
        sizes: Sequence[Annotated[int, Gt(0)]],
        pair: tuple[int, int],
        sides: Annotated[Sequence[Small], Len(1, 2)] | None,
        some: Annotated[list[Colour], MinLen(1)],
        nested: dict[str, dict[str, Colour]],
        more: Literal[Colour, "blue"],
        dotted: ranges.Width,
        hidden: "Hidden",
        text: TEXT,
        endless: Endless,
        absent: missing.Thing,
        by_name: float | Mapping[str, Annotated[float, Le(1)]],
        word: str,
        anything: Any,
        unknown: Unknown | int,
        bare,
    ) -> None: ...


class Composite:
    def __init__(self, *, part: Flattened[Knobs], base: Flattened[Part], more: Small) -> None: ...


def function(steps: Small, path: str | None) -> None: ...
'''
RANGES = """
from typing import Annotated, Literal
from annotated_types import Ge
Width = Annotated[int, Ge(8)]
Words = Literal["a", None, True]
"""
FIELDS = """
from dataclasses import dataclass
from .parts import Colour
@dataclass(frozen=True)
class Field:
    colour: Colour
    other: int = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"somebody_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    files = {"__init__": "from .parts import Knobs\n", "parts": SOURCE, "ranges": RANGES, "fields": FIELDS}
    for file, source in files.items():
        (folder / f"{file}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "colour": (["red", "green"], ["blue", "", None, 1, True]),
    "small": ([1, 9], [0, 10, 10**400, 1.0, True, "1", None]),
    "seed": ([0, 2**32 - 1], [-1, 2**32, 0.5]),
    "share": ([0.5], [0, 1, 1.5, float("nan"), "half"]),
    "rate": ([None, 0, -1.4], [-1.5, True, "x", float("inf")]),
    "either": (["auto", 3], ["no", 1.5, None]),
    "maybe": ([True, False, None], [1, 0, "yes"]),
    "sizes": ([[], [1, 2]], [[0], [1, 0.5], 3, "12", None]),
    "pair": ([[1, 2]], [[0.5, 1], [1], [1, 2, 3]]),
    "sides": ([None, [1], [1, 9]], [[], [1, 2, 3], [0], 5]),
    "some": ([["red"], ["red", "green"]], [[], ["blue"], "red"]),
    "nested": ([{}, {"a": {"b": "red"}}], [{"a": {"b": "blue"}}, {"a": "red"}, "red"]),
    "more": (["red", "blue"], ["black"]),
    "dotted": ([8, 10**400], [7, 8.5]),
    "hidden": (["a", None], ["b"]),
    "by_name": ([0.5, {"a": 1.0}], [{"a": 2}, "a", None]),
    "word": (["a", 12], []),
}


@pytest.mark.parametrize("argument", CASES)
def test_values_are_allowed_or_not(package: str, argument: str) -> None:
    constraint = constraints_of(f"{package}.parts.Knobs")[argument]
    allowed, refused = CASES[argument]
    assert [value for value in allowed if not constraint.allows(value)] == []
    assert [value for value in refused if constraint.allows(value)] == []


def test_what_is_not_understood_restricts_nothing(package: str) -> None:
    assert constraints_of(f"{package}.parts.Knobs").keys() == CASES.keys()
    assert constraints_of(f"{package}.parts.Nothing") == constraints_of("nowhere.at.All") == {}


def test_the_arguments_of_a_flattened_class_count(package: str) -> None:
    result = constraints_of(f"{package}.parts.Composite")
    assert result.keys() == CASES.keys() | {"words", "width"}
    assert result["colour"].words == ["red", "green"] and str(result["width"]) == "an integer of at least 8"
    assert str(result["more"]) == "an integer between 1 and 9"


def test_other_modules_are_followed(package: str) -> None:
    inherited = constraints_of(f"{package}.parts.Part")
    assert str(inherited["width"]) == "an integer of at least 8"
    assert [inherited["words"].allows(value) for value in ("a", None, True, "b", 1)] == [True, True, True, False, False]
    assert constraints_of(f"{package}.Knobs").keys() == CASES.keys(), "a package may pass it on"
    assert constraints_of(f"{package}.fields.Field")["colour"].words == ["red", "green"]
    assert constraints_of(f"{package}.parts.function").keys() == {"steps", "path"}


def test_nothing_is_imported(package: str) -> None:
    constraints_of(f"{package}.parts.Knobs")
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("argument", "value", "nearest"),
    [
        ("small", 100, 9),
        ("small", -1, 1),
        ("small", 2.4, 2),
        ("share", 3, None),
        ("either", 0.7, 1),
        ("colour", 3, None),
    ],
)
def test_the_nearest_number(package: str, argument: str, value: float, nearest: float | None) -> None:
    assert constraints_of(f"{package}.parts.Knobs")[argument].nearest(value) == nearest


def test_ranges_are_written_for_people(package: str) -> None:
    result = constraints_of(f"{package}.parts.Knobs")
    assert str(result["small"]) == "an integer between 1 and 9"
    assert str(result["share"]) == "a number above 0 and below 1"
    assert str(result["rate"]) == "a number above -1.5 or null"
    assert str(result["sizes"]) == "a list of values, each an integer above 0"
    assert result["maybe"].words == [] and str(result["maybe"]) == "true or false or null"
