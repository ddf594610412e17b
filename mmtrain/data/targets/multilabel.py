"""A target with several classes per row: each is present or not."""

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

    An empty list means that the row has none of the classes: all zeros, and labelled. A text of only separators ("|")
    means the same, for tables without lists. A null or blank cell, and a list of only nulls and blanks, is unlabelled.
    Names that are not in the training split are dropped, so a row with only such names has none of the classes.

    Args:
        separator: separates the names in a text; a space splits it into words, and null makes the complete text one
            name.

    Attributes:
        unseen: number of occurrences in `load` of each name that is not in the training split, in this process.
    """

    def __init__(self, *, separator: str | None) -> None:
        if separator == "":
            raise ValueError(f"separator = {separator!r} is blank; set it to '|' or, for one name per cell, to null")
        self.separator = separator
        self.fingerprint = f"multilabel separator={separator!r}"
        self.known = MultiLabelTarget(names=[], counts=[], num_rows=0)
        self.unseen: Counter[str] = Counter()
        self._index: dict[str, int] = {}

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn the names, in sorted order, and their counts from the training split."""
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
        """Read names and counts of a run folder."""
        path = folder / f"labels_{name}.json"
        self._set(MultiLabelTarget(**read_json(path, fix=LEARN_AGAIN, keys=("names", "counts", "num_rows"))))

    def load(self, value: Any) -> Tensor | None:
        """(C,), float32, 1 for the classes of a row and 0 for the others; None if it is unlabelled."""
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
        """(B, C), float32; zeros for unlabelled rows."""
        blank = torch.zeros(len(self.known.names))
        return torch.stack([blank if v is None else v for v in values])

    def _names_of(self, cell: Any) -> list[str] | None:
        """The distinct names of a cell; None if it is unlabelled."""
        if isinstance(cell, str) and self.separator is not None:
            parts: list[Any] = cell.split(self.separator)
            known_none = len(parts) > 1 and not self.separator.isspace()  # only spaces are a blank cell
        else:
            parts = list(cell) if isinstance(cell, Iterable) and not isinstance(cell, str) else [cell]
            known_none = not parts
        names = dict.fromkeys(name for part in parts if (name := name_of(part)) is not None)
        return list(names) if names or known_none else None
