"""A split as samples: a row of the table -> decoded inputs and targets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.turns import TurnsInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.modality_dropout import drop_modalities
from mmtrain.data.order import KeyedOrder, Order, draw_seed, mix
from mmtrain.data.protocols import ChecksMedia, CountsMedia, HasReferences, InputKind, TargetKind
from mmtrain.data.tables.columns import Column, cell_of, is_empty
from mmtrain.data.tables.number_types import number_type, typed_cell
from mmtrain.data.tables.sample_errors import read_or, sample_errors
from mmtrain.data.tables.tables import cells_of, readable_cell, row_at, rows_at
from mmtrain.data.tables.texts import texts_of
from mmtrain.errors import SampleError, printable
from mmtrain.types import Bad, Batch, Sample

Position = tuple[int, int]  # (epoch, position in the epoch); position -1 is a filler
_NUMERIC = ("image", "audio")  # inputs that interpret numbers by their dtype
MAX_CONSECUTIVE_BAD = 100  # consecutive unreadable rows; then the position stays empty


class TrainSplit(Dataset[Sample]):
    """Samples by (epoch, position). The row and every random draw depend only on seed, epoch and position.

    A row that cannot be read is replaced by another, chosen by the same three numbers. The sample records it.

    Args:
        table: a `datasets.Dataset`, or an object with the same access: rows by index, columns by name.
        folder: base of relative paths in the table.
        columns: the column of each input and target that has one; the table may not have it.
        inputs: inputs by modality.
        targets: targets by name.
        seed: seed of the order and of every draw.
        order: maps positions to rows; None for a permutation of all rows.
        label_fraction: fraction of rows that keep their targets in training; chosen by `seed`.
        modality_dropout: by modality, the probability that a training sample does not get it.
    """

    def __init__(
        self,
        table: Any,
        *,
        folder: Path,
        columns: Mapping[str, Column],
        inputs: Mapping[str, InputKind],
        targets: Mapping[str, TargetKind],
        seed: int,
        order: Order | None = None,
        label_fraction: float = 1.0,
        modality_dropout: Mapping[str, float] = {},
    ) -> None:
        self.table = table
        self.folder = folder
        self.columns = columns
        self.inputs = inputs
        self.targets = targets
        self.seed = seed
        self.order = KeyedOrder(len(table)) if order is None else order
        self.label_fraction = label_fraction
        self.modality_dropout = modality_dropout
        self._number_types = {m: number_type(table, columns.get(m)) for m, i in inputs.items() if i.kind in _NUMERIC}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, at: Position) -> Sample:
        return self.__getitems__([at])[0]

    def __getitems__(self, step: Sequence[Position]) -> list[Sample]:
        """Samples at positions of one epoch, whose rows are read together. Called by the DataLoader."""
        epoch = step[0][0]
        assert all(other == epoch for other, _ in step), "a step belongs to one epoch"
        positions = [position for _, position in step if position >= 0]
        rows = self._rows(epoch, positions)
        entries = zip(positions, rows, rows_at(self.table, rows), strict=True)
        return [Sample() if position < 0 else self._sample_at(epoch, *next(entries)) for _, position in step]

    def _rows(self, epoch: int, positions: Sequence[int]) -> list[int]:
        """Row indices of positions."""
        return self.order.rows(np.array(positions, dtype=np.int64), seed=self.seed, epoch=epoch).tolist()

    def _sample_at(self, epoch: int, position: int, row: int, cells: Mapping[str, Any]) -> Sample:
        """The sample at a position, from its row, or from the first replacement that can be read."""
        bad: list[Bad] = []
        while len(bad) < MAX_CONSECUTIVE_BAD:
            try:
                with sample_errors(f"row {row}"):
                    sample = self._sample(cells, row, seed=draw_seed(self.seed, epoch, position), train=True)
            except SampleError as error:
                bad.append(bad_row(cells, row, error))
            else:
                sample.bad = bad
                return sample
            row = mix(self.seed, epoch, position, len(bad)) % len(self.table)
            cells = row_at(self.table, row)
        return Sample(bad=bad)

    def sample(self, row: int, *, seed: int, train: bool) -> Sample:
        """Decode one row. A null or blank cell is a missing input or target.

        Raises:
            SampleError: if a part of it cannot be read.
        """
        with sample_errors(f"row {row}"):
            return self._sample(row_at(self.table, row), row, seed=seed, train=train)

    def _sample(self, cells: Mapping[str, Any], row: int, *, seed: int, train: bool) -> Sample:
        """Decode one row. The caller converts other errors to SampleError, see `sample_errors`."""
        cells.get("id")  # a row whose id cannot be read must not get another id
        sample = Sample(id=id_of(cells, row), row=row, draw=seed if train else row)
        available = {m: self._cell(cells, m) for m in self.inputs}
        load_inputs(sample, available, self.inputs, self.folder, seed=seed, train=train)
        media = num_media(sample, self.inputs)
        if train:
            drop_modalities(sample, self.modality_dropout, seed=seed)
        labelled = not train or mix(self.seed, row) < self.label_fraction * 2**64
        for name, target in self.targets.items() if labelled else ():
            cell = cell_of(cells, self.columns.get(name))
            with sample_errors(cell):
                value = target.load(cell)
                if value is not None:
                    if isinstance(target, ChecksMedia):
                        target.check_media(value, media)
                    sample.targets[name] = value
                    if isinstance(target, HasReferences) and (not train or target.keep_references):
                        sample.references[name] = target.references(cell)
        return sample

    def _cell(self, cells: Mapping[str, Any], modality: str) -> Any:
        """The cell of an input, with numbers in the dtype of their column."""
        return typed_cell(cell_of(cells, self.columns.get(modality)), self._number_types.get(modality))


class EvalSplit(TrainSplit):
    """Each row once, in the order of the table, without random draws.

    A row with several texts is followed (after all rows) by one sample per additional text, which has only that text,
    and the keys of the row's content. Every caption is used as a query, and nothing is counted twice. A row that cannot
    be read has no inputs, and records the reason.
    """

    def __init__(self, table: Any, **parts: Any) -> None:
        super().__init__(table, **parts)
        self.further = [
            (row, modality, nth)
            for modality, reader in self.inputs.items()
            if reader.kind == "text" and self.columns.get(modality) in table.column_names
            for row, value in enumerate(cells_of(table, self.columns[modality]))
            for nth in range(1, _num_texts(value))
        ]
        self._positions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.table) + len(self.further)

    def _rows(self, epoch: int, positions: Sequence[int]) -> list[int]:
        size = len(self.table)
        return [position if position < size else self.further[position - size][0] for position in positions]

    def _sample_at(self, epoch: int, position: int, row: int, cells: Mapping[str, Any]) -> Sample:
        is_further = position >= len(self.table)
        try:
            with sample_errors(f"row {row}"):
                if is_further:
                    return self._further_sample(position, cells)
                return self._sample(cells, row, seed=0, train=False)
        except SampleError as error:
            bad = bad_row(cells, row, error)
            return Sample(id=self.name(position) if is_further else bad.id, row=position, bad=[bad])

    def _further_sample(self, position: int, cells: Mapping[str, Any]) -> Sample:
        """One additional text of a row, with the keys of the row's content."""
        row, modality, nth = self.further[position - len(self.table)]
        sample = Sample(id=f"{id_of(cells, row)}#{nth}", row=position, draw=position)
        text = texts_of(cell_of(cells, self.columns[modality]))[nth]
        loaded = self.inputs[modality].load(text, self.folder, seed=0, train=False)
        assert loaded is not None, "a text that is not blank"
        sample.inputs[modality], sample.keys[modality] = loaded
        for other, reader in self.inputs.items():
            value = self._cell(cells, other)
            if reader.kind != "text" and not is_empty(value):
                with sample_errors(value):
                    sample.keys[other] = reader.key(value)
        return sample

    def name(self, position: int) -> str:
        """The id at a position."""
        if position < len(self.table):
            return id_of(row_at(self.table, position), position)
        row, _, nth = self.further[position - len(self.table)]
        return f"{id_of(row_at(self.table, row), row)}#{nth}"

    def position(self, name: str) -> int:
        """The position of an id."""
        if not self._positions:
            rows = rows_at(self.table, range(len(self.table)))
            names = [id_of(cells, row) for row, cells in enumerate(rows)]
            names += [f"{names[row]}#{nth}" for row, _, nth in self.further]
            self._positions = {name: position for position, name in enumerate(names)}
        return self._positions[name]

    def text(self, position: int) -> str | None:
        """The text at a position; None if there is none or it cannot be read."""
        try:
            with sample_errors(f"row {position}"):
                text = self._text(position)
                (text or "").encode()  # a page cannot contain half of a surrogate pair
                return text
        except SampleError:
            return None

    def _text(self, position: int) -> str | None:
        row, nth = position, 0
        if position >= len(self.table):
            row, _, nth = self.further[position - len(self.table)]
        cells = row_at(self.table, row)
        for modality, reader in self.inputs.items():
            if reader.kind == "text":
                texts = texts_of(cell_of(cells, self.columns.get(modality)))
                return texts[nth] if nth < len(texts) else None
        for modality, reader in self.inputs.items():
            value = cell_of(cells, self.columns.get(modality))
            if isinstance(reader, TurnsInput) and not is_empty(value):
                return reader.text(value)
        return None

    def picture(self, position: int) -> Any:
        """The image at a position, four frames of a video, or None."""
        if position >= len(self.table):
            return None
        cells = row_at(self.table, position)
        for modality, reader in self.inputs.items():
            value = typed_cell(readable_cell(cells, self.columns.get(modality)), self._number_types.get(modality))
            if isinstance(reader, ImageInput | VideoInput) and not is_empty(value):
                try:
                    with sample_errors(value):
                        return reader.open(value, self.folder)
                except SampleError:
                    return None
        return None


def load_inputs(
    sample: Sample, cells: Mapping[str, Any], inputs: Mapping[str, InputKind], folder: Path, *, seed: int, train: bool
) -> None:
    """Decode the inputs of a sample, by modality. A null or blank cell is a missing input.

    Raises:
        SampleError: if an input cannot be read.
    """
    for modality, reader in inputs.items():
        value = cells.get(modality)
        with sample_errors(value):
            loaded = None if is_empty(value) else reader.load(value, folder, seed=seed, train=train)
        if loaded is not None:
            sample.inputs[modality], sample.keys[modality] = loaded


def num_media(sample: Sample, inputs: Mapping[str, InputKind]) -> dict[str, int]:
    """Number of media of a sample by modality: more than one if a cell can contain several."""
    readers = {m: inputs[m] for m in sample.inputs}
    return {
        m: reader.count(sample.inputs[m]) if isinstance(reader, CountsMedia) else 1 for m, reader in readers.items()
    }


def id_of(cells: Mapping[str, Any], row: int) -> str:
    """The name of a row: its `id` column, or its index, also if the id cannot be read."""
    given = readable_cell(cells, "id")
    return str(row) if given is None or given == "" else str(given)  # "" would mark a filler


def bad_row(cells: Mapping[str, Any], row: int, error: SampleError) -> Bad:
    """The record of a row that cannot be read."""
    return Bad(id=printable(id_of(cells, row)), row=row, file=error.file, reason=error.reason, type=error.error_type)


def _num_texts(value: Any) -> int:
    """Number of texts in a cell; 0 if it cannot be read."""
    return len(read_or((), value, texts_of))


class Collate:
    """Collates the samples of a step on this rank into micro-batches.

    Args:
        inputs: inputs by modality; each is in every batch, present or not.
        targets: targets by name; each is in every batch.
        num_micro_batches: number of batches of equal size.
    """

    def __init__(
        self, *, inputs: Mapping[str, InputKind], targets: Mapping[str, TargetKind], num_micro_batches: int = 1
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.num_micro_batches = num_micro_batches

    def __call__(self, samples: Sequence[Sample]) -> list[Batch]:
        """Return the micro-batches, in order."""
        size = len(samples) // self.num_micro_batches
        assert size * self.num_micro_batches == len(samples), "filler samples make micro-batches equal"
        return [self.batch(samples[start : start + size]) for start in range(0, len(samples), size)]

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Collate one batch, with masks for what each sample has."""
        return Batch(
            ids=[s.id for s in samples],
            rows=torch.tensor([s.row for s in samples]),
            inputs={m: reader.pad([s.inputs.get(m) for s in samples]) for m, reader in self.inputs.items()},
            present={m: torch.tensor([m in s.inputs for s in samples]) for m in self.inputs},
            targets={t: target.pad([s.targets.get(t) for s in samples]) for t, target in self.targets.items()},
            labelled={t: torch.tensor([t in s.targets for s in samples]) for t in self.targets},
            keys={m: torch.tensor([s.keys.get(m, 0) for s in samples]) for m in self.inputs},
            draws=torch.tensor([s.draw for s in samples]),
            bad=[bad for s in samples for bad in s.bad],
            references={
                t: [s.references.get(t, []) for s in samples]
                for t in self.targets
                if any(t in s.references for s in samples)
            },
        )
