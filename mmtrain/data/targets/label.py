"""A class target, whose names are learned from the training split and stored in the run folder."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.data.tables.columns import is_number, name_of, without_point
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import ClassTarget


class ClassLabel:
    """A column of class names (or numbers). Classes are in the order of their names.

    If all names are numbers, 3 and 3.0 are one class, because pandas writes integers as 3.0 in a column with gaps.
    """

    fingerprint = "class"

    def __init__(self) -> None:
        self.known = ClassTarget(names=[], counts=[])
        self._index: dict[str, int] = {}
        self._are_numbers = False

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn the names and their counts from the training split."""
        counts = Counter(name for name in read_each(cells, name_of) if name is not None)
        for name in list(counts) if all(map(is_number, counts)) else ():
            integer_name = without_point(name)
            if integer_name != name and integer_name in counts:
                counts[integer_name] += counts.pop(name)
        self._set(ClassTarget(names=sorted(counts), counts=[counts[n] for n in sorted(counts)]))

    def _set(self, known: ClassTarget) -> None:
        self.known = known
        index = {name: i for i, name in enumerate(known.names)}
        self._are_numbers = all(map(is_number, index))
        self._index = ({without_point(name): i for name, i in index.items()} if self._are_numbers else {}) | index

    def save(self, folder: Path, name: str) -> None:
        """Write the names and counts into a run folder."""
        content = {"names": self.known.names, "counts": self.known.counts}
        write_json(folder / f"classes_{name}.json", content, indent=1)

    def restore(self, folder: Path, name: str) -> None:
        """Read the names and counts of a run folder."""
        path = folder / f"classes_{name}.json"
        self._set(ClassTarget(**read_json(path, fix=LEARN_AGAIN, keys=("names", "counts"))))

    def load(self, value: Any) -> Tensor | None:
        """The index of the class, scalar int64; None for an empty cell and for a name that training does not have."""
        index = self._at(name_of(value) or "")
        return None if index is None else torch.tensor(index)

    def _at(self, name: str) -> int | None:
        index = self._index.get(name)
        return self._index.get(without_point(name)) if index is None and self._are_numbers else index

    def unseen(self, cells: Iterable[Any]) -> Counter[str]:
        """Names in these cells that are not in the training split, with their counts."""
        return Counter(name for name in read_each(cells, name_of) if name is not None and self._at(name) is None)

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B,), int64; 0 for unlabelled rows."""
        return torch.stack([torch.tensor(0) if v is None else v for v in values])
