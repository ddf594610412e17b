"""A target of several classes at once: each is there or is not."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.data.tables.columns import name_of
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import MultiLabelTarget


class MultiLabel:
    """A column of lists of class names, or of names in one text: "cat|dog".

    An empty list says that the row is known to have none of the classes: all zeros, and labelled. So does a text of
    separators alone ("|"), for tables that cannot hold a list. A null or blank cell, and a list of nothing but
    nulls and blanks, is unlabelled. Names that training never saw are left out, and the row counts as having none of
    the known ones.

    Args:
        separator: between the names of a text; a space makes its words the names, null the whole text one name.

    Attributes:
        unseen: how often `load` met each name that training never saw, in this process.
    """

    def __init__(self, *, separator: str | None) -> None:
        if separator == "":
            raise ValueError(f"separator = {separator!r} is blank; set it to '|', say, or to null for one name a cell")
        self.separator = separator
        self.recipe = f"multilabel separator={separator!r}"
        self.known = MultiLabelTarget(names=[], counts=[], num_rows=0)
        self.unseen: Counter[str] = Counter()
        self._index: dict[str, int] = {}

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn the names, in their own order, and their counts from the training split."""
        counts: Counter[str] = Counter()
        num_rows = 0
        for names in read_each(cells, self._names_of):
            if names is not None:
                counts.update(names)
                num_rows += 1
        known = sorted(counts)
        self._set(MultiLabelTarget(names=known, counts=[counts[n] for n in known], num_rows=num_rows))

    def _set(self, known: MultiLabelTarget) -> None:
        self.known = known
        self._index = {name: i for i, name in enumerate(known.names)}

    def save(self, folder: Path, name: str) -> None:
        """Write names and counts into a run folder."""
        write_json(folder / f"labels_{name}.json", asdict(self.known), indent=1)

    def restore(self, folder: Path, name: str) -> None:
        """Take names and counts of a run folder."""
        path = folder / f"labels_{name}.json"
        self._set(MultiLabelTarget(**read_json(path, fix=LEARN_AGAIN, keys=("names", "counts", "num_rows"))))

    def load(self, value: Any) -> Tensor | None:
        """(C,), float32, 1 for the classes that a row has and 0 for the others; None when it is unlabelled."""
        names = self._names_of(value)
        if names is None:
            return None
        has = torch.zeros(len(self.known.names))
        for name in names:
            if name in self._index:
                has[self._index[name]] = 1.0
            else:
                self.unseen[name] += 1
        return has

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, C), float32; zeros where a row is unlabelled."""
        blank = torch.zeros(len(self.known.names))
        return torch.stack([blank if v is None else v for v in values])

    def _names_of(self, cell: Any) -> list[str] | None:
        """The names of a cell, each once; None when it is unlabelled."""
        if isinstance(cell, str) and self.separator is not None:
            parts: list[Any] = cell.split(self.separator)
            known_none = len(parts) > 1 and not self.separator.isspace()  # spaces alone are a blank cell
        else:
            parts = list(cell) if isinstance(cell, Iterable) and not isinstance(cell, str) else [cell]
            known_none = not parts
        names = dict.fromkeys(name for part in parts if (name := name_of(part)) is not None)
        return list(names) if names or known_none else None
