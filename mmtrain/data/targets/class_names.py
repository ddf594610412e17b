"""How the names of classes are written in a table: what a person should know of them before training."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.scale import in_short
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.multilabel import MultiLabel

# What programs write for a missing value. In a cell of text these are words, and become a class
_MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil", "missing", "?", "-"))


def notes_of_names(
    name: str, target: ClassLabel | MultiLabel, cells: Iterable[Any], *, column: str, where: str
) -> Iterator[str]:
    """What a person should know of how the classes of training are written.

    Args:
        name: of the target.
        target: that has learned the classes.
        cells: of the column, in training.
        column: its name.
        where: the training table, for messages.
    """
    texts = Counter(cell for cell in cells if isinstance(cell, str) and not is_empty(cell))
    what = f"{where}: the column {column}"
    forms: dict[str, list[str]] = {}
    for text in texts if isinstance(target, ClassLabel) else ():
        index = target.load(text)
        if index is not None:
            forms.setdefault(target.known.names[int(index)], []).append(text)
    if several := [found for found in forms.values() if len(found) > 1]:
        yield f"{what} writes {len(several)} classes in more than one way, which count as one: {_some(several)}"
    if alike := _groups(target.known.names, str.casefold):
        yield f"{what} has classes that differ in upper and lower case alone, and stay apart: {_some(alike)}"
    if alike := _groups(target.known.names, _number):
        yield f"{what} has classes that are the same number, and stay apart: {_some(alike)}"
    if missing := [known for known in target.known.names if known.casefold() in _MISSING]:
        yield (
            f"{what} has the classes {', '.join(map(repr, missing))}, which often mean a missing value\n"
            f"    fix: leave these cells empty, if their rows have no {name}"
        )
    count = texts.total()
    lists = [text for text in texts if re.fullmatch(r"\s*[\[({].*[\])}]\s*", text, re.DOTALL)]
    if lists and sum(texts[text] for text in lists) > count / 2:
        yield (
            f"{what} holds lists that are written as text, such as {in_short(lists[0])}: they are not taken apart\n"
            f"    fix: write them as lists in a .jsonl, or as a|b, and learn them by task=[multilabel]"
        )
    elif isinstance(target, MultiLabel) and target.separator is not None:
        share = {mark: sum(n for text, n in texts.items() if mark in text) for mark in (target.separator, *",;|/")}
        other = max(share, key=lambda mark: share[mark])
        if not share[target.separator] and share[other] > count / 4:
            example = next(text for text in texts if other in text)
            yield (
                f"{what} never has the separator {target.separator!r}, so that {in_short(example)!r} is one class\n"
                f"    fix: data.targets.{name}.separator='{other}'"
            )


def _groups(names: Iterable[str], key: Callable[[str], Hashable | None]) -> list[list[str]]:
    """Names that have one key, of more than one name; those whose key is None are left out."""
    found: dict[Hashable, list[str]] = {}
    for name in names:
        if (shared := key(name)) is not None:
            found.setdefault(shared, []).append(name)
    return [group for group in found.values() if len(group) > 1]


def _number(name: str) -> float | int | None:
    """The number that a name is written as; None for a word."""
    if re.fullmatch(r"[-+]?\d+", name, re.ASCII):
        return int(name)  # exact, also beyond 2^53
    return float(name) if re.fullmatch(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?\.?", name, re.ASCII | re.IGNORECASE) else None


def _some(groups: Sequence[Sequence[str]]) -> str:
    """A few groups of names."""
    shown = "; ".join(", ".join(map(ascii, names[:4])) for names in groups[:3])
    return shown + (" ..." if len(groups) > 3 else "")
