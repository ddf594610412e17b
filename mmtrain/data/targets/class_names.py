"""Notes about the spelling of class names in a table, before training."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.scale import in_short
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.multilabel import MultiLabel

# What programs write for a missing value. In a text cell these are words, and become a class
_MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil", "missing", "?", "-"))


def notes_of_names(
    name: str, target: ClassLabel | MultiLabel, cells: Iterable[Any], *, column: str, where: str
) -> Iterator[str]:
    """Notes about the spelling of the classes in the training split.

    Args:
        name: name of the target.
        target: the target with its classes.
        cells: cells of the column in the training split.
        column: name of the column.
        where: the training table, for messages.
    """
    texts = Counter(cell for cell in cells if isinstance(cell, str) and not is_empty(cell))
    what = f"{where}: the column {column}"
    forms: dict[str, list[str]] = {}
    for text in texts if isinstance(target, ClassLabel) else ():
        index = target.load(text)
        if index is not None:
            forms.setdefault(target.known.names[int(index)], []).append(text)
    if several := [result for result in forms.values() if len(result) > 1]:
        yield f"{what} has {len(several)} classes in several spellings, which count as one: {_some(several)}"
    if similar := _groups(target.known.names, str.casefold):
        yield f"{what} has classes that differ only in upper and lower case, and stay separate: {_some(similar)}"
    if similar := _groups(target.known.names, _number):
        yield f"{what} has classes that are the same number, and stay separate: {_some(similar)}"
    if missing := [known for known in target.known.names if known.casefold() in _MISSING]:
        yield (
            f"{what} has the classes {', '.join(map(repr, missing))}, which often mean a missing value\n"
            f"    fix: leave these cells empty, if their rows have no {name}"
        )
    count = texts.total()
    lists = [text for text in texts if re.fullmatch(r"\s*[\[({].*[\])}]\s*", text, re.DOTALL)]
    if lists and sum(texts[text] for text in lists) > count / 2:
        yield (
            f"{what} has lists that are written as text, such as {in_short(lists[0])}: they are not split\n"
            f"    fix: write them as lists in a .jsonl, or as a|b, and learn them with task=[multilabel]"
        )
    elif isinstance(target, MultiLabel) and target.separator is not None:
        share = {mark: sum(n for text, n in texts.items() if mark in text) for mark in (target.separator, *",;|/")}
        other = max(share, key=lambda mark: share[mark])
        if not share[target.separator] and share[other] > count / 4:
            example = next(text for text in texts if other in text)
            yield (
                f"{what} never has the separator {target.separator!r}, so {in_short(example)!r} is one class\n"
                f"    fix: data.targets.{name}.separator='{other}'"
            )


def _groups(names: Iterable[str], key: Callable[[str], Hashable | None]) -> list[list[str]]:
    """Groups of several names with the same key; names whose key is None are omitted."""
    results: dict[Hashable, list[str]] = {}
    for name in names:
        if (shared := key(name)) is not None:
            results.setdefault(shared, []).append(name)
    return [group for group in results.values() if len(group) > 1]


def _number(name: str) -> float | int | None:
    """The number that a name represents; None for a word."""
    if re.fullmatch(r"[-+]?\d+", name, re.ASCII):
        return int(name)  # exact, even beyond 2^53
    return float(name) if re.fullmatch(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?\.?", name, re.ASCII | re.IGNORECASE) else None


def _some(groups: Sequence[Sequence[str]]) -> str:
    """A few groups of names."""
    shown = "; ".join(", ".join(map(ascii, names[:4])) for names in groups[:3])
    return shown + (" ..." if len(groups) > 3 else "")
