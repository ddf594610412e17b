"""A survey of a data set before training: missing contents, lengths, class balance, and what splits share.

Of a large table only some evenly spaced rows are checked, so that a survey does not take minutes. The result says so.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor

from mmtrain.data.dataset import TrainSplit, bad_row, id_of
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import TargetKind
from mmtrain.data.survey.lengths import Lengths, measure_lengths, summarize_lengths
from mmtrain.data.survey.overlap import Overlap, find_overlap, normalize_text, shared_files
from mmtrain.data.survey.subsample import evenly_spaced
from mmtrain.data.tables.columns import Column, cell_of, is_empty
from mmtrain.data.tables.sample_errors import read_each, read_or
from mmtrain.data.tables.tables import cells_of, row_at
from mmtrain.data.tables.texts import valid_texts
from mmtrain.errors import SampleError
from mmtrain.types import AnswerTarget, Bad, ClassTarget, MultiLabelTarget, NumberTarget, TokenTarget

FILES = ("image", "audio", "video", "sequence")  # kinds whose cells can be files
NO_CLASS = "(none that training has)"


@dataclass(frozen=True)
class Limits:
    """How much is checked.

    Attributes:
        heavy: rows of a split whose images, audio and videos are checked if the table itself contains them.
        measured: contents of a split and input whose length is measured.
        decoded: rows of a split that are read completely, to find unreadable rows.
        files: files of a split and input that are compared with those of other splits.
        file_bytes: number of bytes of them that are read.
    """

    heavy: int
    measured: int
    decoded: int
    files: int
    file_bytes: int


@dataclass
class Survey:
    """The result of a survey.

    Attributes:
        seen: by split and input or target, the number of rows that were checked.
        missing: by split and input or target, the number of checked rows in which it is empty.
        gaps: by split and input or target with several columns, the number of rows in which each column is empty.
        nothing: by split, ids of rows without any input.
        lengths: by split and input (or target of numbers or sentences).
        balance: by target and split, the number of rows of each class.
        labelled: by target and split, the number of rows with a label.
        shared_files: by input, contents that are in several splits.
        shared_texts: by input, texts that are in several splits.
        num_texts: by input, the number of different texts.
        shared_ids: ids that are in several splits.
        bad: by split, unreadable rows.
        decoded: by split, the number of rows that were read completely.
        notes: what was not checked.
    """

    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    gaps: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    nothing: dict[str, list[str]] = field(default_factory=dict)
    lengths: dict[str, dict[str, list[Lengths]]] = field(default_factory=dict)
    balance: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    labelled: dict[str, dict[str, int]] = field(default_factory=dict)
    shared_files: dict[str, list[Overlap]] = field(default_factory=dict)
    shared_texts: dict[str, list[Overlap]] = field(default_factory=dict)
    num_texts: dict[str, int] = field(default_factory=dict)
    shared_ids: list[Overlap] = field(default_factory=list)
    bad: dict[str, list[Bad]] = field(default_factory=dict)
    decoded: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def survey_of(data: DataModule, limits: Limits) -> Survey:
    """Survey data whose tables were read.

    Args:
        data: after `read`.
        limits: how much to check.
    """
    survey = Survey()
    looks = {split: TableSurvey(data, split, limits) for split in data.tables}
    for split, look in looks.items():
        survey.seen[split] = {name: len(cells) for name, cells in look.cells.items()}
        survey.missing[split] = {name: sum(map(is_empty, cells.values())) for name, cells in look.cells.items()}
        survey.gaps[split] = {
            name: {
                part: sum(is_empty(cell[at]) for cell in look.cells[name].values()) for at, part in enumerate(column)
            }
            for name, column in data.columns.items()
            if not isinstance(column, str) and name in look.cells
        }
        survey.nothing[split] = look.nothing()
        survey.lengths[split], unread = look.lengths()
        survey.bad[split], survey.decoded[split] = look.bad(unread)
        for name in [name for name in data.targets if name in look.cells]:
            _add_target(survey, look, split, name, data.targets[name])
    survey.shared_ids = find_overlap({split: [(id, id) for id in look.given_ids()] for split, look in looks.items()})
    for name, reader in data.inputs.items():
        if reader.kind == "text":
            texts = {split: look.texts(name) for split, look in looks.items()}
            survey.shared_texts[name] = find_overlap(texts)
            survey.num_texts[name] = len({text for pairs in texts.values() for _, text in pairs})
        elif reader.kind in FILES:
            of_splits = {split: look.some(name, limits.files) for split, look in looks.items()}
            named = {s: [(looks[s].id(row), cell) for row, cell in cells] for s, cells in of_splits.items()}
            folders = {split: data.folder_of(split) for split in named}
            survey.shared_files[name], complete = shared_files(named, folders, most_bytes=limits.file_bytes)
            sampled = any(len(of_splits[s]) < looks[s].there(name) for s in looks)
            if len(looks) > 1 and (sampled or not complete):
                survey.notes.append(f"{name}: not all files were compared, because they are many")
    return survey


class TableSurvey:
    """The cells of a split.

    Attributes:
        cells: by input and target, the row and its cell: of all rows, or of some where the table holds the files.
    """

    def __init__(self, data: DataModule, split: str, limits: Limits) -> None:
        self.data = data
        self.split = split
        self.limits = limits
        self.table = data.tables[split]
        self.cells = {
            name: self._cells(data.columns[name])
            for name in [*data.inputs, *data.targets]
            if name in data.columns and self._is_there(data.columns[name])
        }
        self._ids = list(cells_of(self.table, "id")) if self._is_light("id") else None

    def _is_there(self, column: Column) -> bool:
        parts = [column] if isinstance(column, str) else column
        return all(part in self.table.column_names for part in parts)

    def _is_light(self, *columns: str) -> bool:
        """Whether a complete column can be read at once, because it contains no files."""
        if not isinstance(self.table, datasets.Dataset):
            return False
        features = [self.table.features.get(column) for column in columns]
        files = (datasets.Image, datasets.Audio, datasets.Video)
        return all(f is not None and not isinstance(f, files) and "binary" not in str(f) for f in features)

    def _cells(self, column: Column) -> dict[int, Any]:
        parts = [column] if isinstance(column, str) else column
        if self._is_light(*parts):
            return dict(enumerate(cells_of(self.table, column)))
        cells: dict[int, Any] = {}
        for row in evenly_spaced(len(self.table), self.limits.heavy):
            try:
                cells[row] = cell_of(row_at(self.table, row), column)
            except SampleError:  # reading the sample says why
                continue
        return cells

    def id(self, row: int) -> str:
        """The name of a row."""
        if self._ids is None and "id" in self.table.column_names:
            return id_of(row_at(self.table, row), row)
        return id_of({} if self._ids is None else {"id": self._ids[row]}, row)

    def given_ids(self) -> list[str]:
        """The ids in the table itself."""
        return [str(id) for id in self._ids or [] if not is_empty(id)]

    def nothing(self) -> list[str]:
        """The ids of rows without any input."""
        columns = [cells for name, cells in self.cells.items() if name in self.data.inputs]
        rows = set.intersection(*(set(cells) for cells in columns)) if columns else set()
        return [self.id(row) for row in sorted(rows) if all(is_empty(cells[row]) for cells in columns)]

    def there(self, name: str) -> int:
        """The number of cells of an input that are not empty."""
        return sum(not is_empty(cell) for cell in self.cells.get(name, {}).values())

    def some(self, name: str, most: int) -> list[tuple[int, Any]]:
        """At most `most` non-empty cells of an input or target."""
        available = [(row, cell) for row, cell in self.cells.get(name, {}).items() if not is_empty(cell)]
        return [available[nth] for nth in evenly_spaced(len(available), most)]

    def texts(self, name: str) -> list[tuple[str, str]]:
        """The id and each text of a text input. Repeated texts of a row are listed once."""
        cells = self.cells.get(name, {}).items()
        read = ((row, read_or((), cell, valid_texts)) for row, cell in cells)
        return [(self.id(row), text) for row, texts in read for text in dict.fromkeys(map(normalize_text, texts))]

    def lengths(self) -> tuple[dict[str, list[Lengths]], list[int]]:
        """Lengths of each input that has any, and the rows without a length because they cannot be read."""
        results: dict[str, list[Lengths]] = {}
        unread: list[int] = []
        for name, reader in self.data.inputs.items():
            result = measure_lengths(reader, self.some(name, self.limits.measured), self.data.folder_of(self.split))
            unread += result.unread
            if result.lengths:
                results[name] = result.lengths
        return results, unread

    def bad(self, suspects: list[int]) -> tuple[list[Bad], int]:
        """Unreadable rows among the suspects and some others, and the number of rows that were tried."""
        split = TrainSplit(self.table, **self.data.parts(self.split))
        rows = sorted({*suspects, *evenly_spaced(len(self.table), self.limits.decoded)})
        bad: list[Bad] = []
        for row in rows:
            try:
                split.sample(row, seed=0, train=False)
            except SampleError as error:
                bad.append(bad_row({"id": self.id(row)}, row, error))
        return bad, len(rows)


def _add_target(survey: Survey, look: TableSurvey, split: str, name: str, target: TargetKind) -> None:
    known = target.known
    values = list(read_each(look.cells[name].values(), lambda cell: (cell, target.load(cell))))
    loaded = [value for _, value in values if value is not None]
    if isinstance(known, ClassTarget | MultiLabelTarget | AnswerTarget):
        counts: Counter[str] = Counter()
        for value in loaded:
            counts.update(_classes(known, value))
        unseen = sum(value is None and not is_empty(cell) for cell, value in values)
        survey.labelled.setdefault(name, {})[split] = len(loaded) + unseen
        if unseen:
            counts[NO_CLASS] += unseen
        survey.balance.setdefault(name, {})[split] = counts
    elif loaded and isinstance(known, NumberTarget):
        numbers = torch.stack(loaded) * torch.tensor(known.std) + torch.tensor(known.mean)  # (N, K)
        one = len(known.names) == 1
        survey.lengths[split][name] = [
            summarize_lengths("value" if one else f"value {k}", numbers[:, k].tolist(), ",.4g")
            for k in range(len(known.names))
        ]
    elif loaded and isinstance(known, TokenTarget):
        cut = sum(len(value) == known.max_length for value in loaded)
        note = f"{cut:,} of {len(loaded):,} reach max_length = {known.max_length}" if cut else ""
        survey.lengths[split][name] = [summarize_lengths("tokens", map(len, loaded), ",.0f", note)]


def _classes(known: ClassTarget | MultiLabelTarget | AnswerTarget, value: Tensor) -> list[str]:
    """The class of a row, its classes if it has several, or its most frequent answer."""
    if isinstance(known, ClassTarget):
        return [known.names[int(value)]]
    if isinstance(known, AnswerTarget):
        return [known.names[int(value.argmax())] if bool(value.any()) else NO_CLASS]
    return [known.names[index] for index in value.nonzero().flatten().tolist()]


def shares(counts: Mapping[str, Counter[str]], most: int) -> tuple[list[str], dict[str, int]]:
    """The most frequent classes over all splits, and the number of rows of each split with another class."""
    total: Counter[str] = Counter()
    for split in counts.values():
        total.update(split)
    order = [name for name, _ in total.most_common() if name != NO_CLASS]
    top = order[:most]
    kept = {*top, NO_CLASS}
    return top, {split: sum(n for name, n in of.items() if name not in kept) for split, of in counts.items()}
