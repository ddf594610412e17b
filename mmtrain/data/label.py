"""A class target: its names come from the training split and are kept in the run folder."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.types import ClassTarget


class ClassLabel:
    """A column of class names (or numbers); the order of the classes is that of their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = ClassTarget(names=[], counts=[])
        self._index: dict[str, int] = {}

    @property
    def _file_name(self) -> str:
        return f"classes_{self.name}.json"

    def fit(self, values: Iterable[Any]) -> None:
        """Learn the names and their counts from the training split."""
        counts = Counter(name for v in values if (name := _name_of(v)) is not None)
        self._set(ClassTarget(names=sorted(counts), counts=[counts[n] for n in sorted(counts)]))

    def _set(self, known: ClassTarget) -> None:
        self.known = known
        self._index = {name: i for i, name in enumerate(known.names)}

    def save(self, folder: Path) -> None:
        """Write the names and counts into a run folder."""
        text = json.dumps({"names": self.known.names, "counts": self.known.counts}, indent=1, ensure_ascii=False)
        (folder / self._file_name).write_text(text + "\n", encoding="utf-8")

    def restore(self, folder: Path) -> None:
        """Take the names and counts of a run folder."""
        self._set(ClassTarget(**json.loads((folder / self._file_name).read_text(encoding="utf-8"))))

    def load(self, value: Any) -> Tensor | None:
        """The index of the class, scalar int64; None for an empty cell and for a name that training never saw."""
        index = self._index.get(_name_of(value) or "")
        return None if index is None else torch.tensor(index)


def _name_of(value: Any) -> str | None:
    """The class that a cell names; 3.0 is 3, because a column of numbers with gaps often comes as floats."""
    if value is None or value != value:  # NaN is a gap as well
        return None
    name = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return name if name.strip() else None
