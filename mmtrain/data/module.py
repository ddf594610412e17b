"""The data of a run: tables, columns, vocabularies and loaders behind one LightningDataModule.

The run folder keeps what the run learned (a tokenizer, class names) and which inputs and targets it had. A resume or a
test reads it from there, so its tables may be without captions or labels.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from mmtrain.annotations import Fraction, NonNegativeInt, PositiveInt, Seed
from mmtrain.data.dataset import Collate, EvalSplit, TrainSplit, id_of
from mmtrain.data.inputs.audio import AudioInput, is_without_rate
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.inputs.text_checks import cut_texts
from mmtrain.data.loader import EvalSteps, TrainSteps, make_loader
from mmtrain.data.modality_dropout import modality_rates
from mmtrain.data.order import KeyedOrder
from mmtrain.data.protocols import CountsMedia, FittedKind, HasVocabulary, InputKind, TargetKind
from mmtrain.data.sampling.buckets import BucketedSteps, Buckets
from mmtrain.data.sampling.row_lengths import row_lengths
from mmtrain.data.sampling.subset import Subset
from mmtrain.data.sources.files import tables_of
from mmtrain.data.tables.cell_checks import NO_FILES, read_as
from mmtrain.data.tables.class_checks import check_classes
from mmtrain.data.tables.column_notes import columns_not_read, notes_of_columns
from mmtrain.data.tables.column_types import guess_types
from mmtrain.data.tables.columns import Column, absent_columns, find_columns, is_empty, no_input
from mmtrain.data.tables.folder_tables import SplitFiles
from mmtrain.data.tables.row_checks import check_rows
from mmtrain.data.tables.row_digest import RowFacts, digest_rows
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.scale import in_short
from mmtrain.data.tables.splits import AllRows, Split
from mmtrain.data.tables.table_checks import check_size, faults_of_cells, no_table
from mmtrain.data.tables.tables import SupportsColumns, Tables, cells_of, readable_cell, row_at, rows_at
from mmtrain.data.tables.turn_columns import with_turn_columns
from mmtrain.data.targets.class_names import notes_of_names
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.multilabel import MultiLabel
from mmtrain.data.targets.text import TextTarget
from mmtrain.data.tokenizers.vocabulary import RECORD, read_vocabulary, write_vocabulary
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.types import Batch, Sample

NUM_LOOKED_AT = 100  # rows that are tried for an example
MAX_COUNTED = 100_000  # rows of a table whose cells are counted
SAMPLED_IDS = 1000  # in the digest of a split's ids


class DataModule(LightningDataModule):
    """Reads tables and makes the batches of a run.

    Args:
        source: gives the folder with the tables (an embedded data set makes it first), or the tables themselves.
        split: how a lone table is split.
        columns: by input or target, its column, or None to look for the usual names.
        inputs: by modality, how to read it.
        targets: by name, how to read it.
        max_bad_fraction: share of a split's rows that may turn out not to be readable before the run stops.
        label_fraction: share of the training rows that keep their targets, for learning from few labels; which ones
            follows from `seed`.
        modality_dropout: how often a training row that has a modality comes without it, for all or by modality; a row
            never loses all that it has.
        restrict_paths: whether every file, of a table or named in one, must lie in the data folder.
        license: of the data, for the model's card; None if unknown.
        languages: of its texts and speech; None if unknown.
        bucket: how batches of training are made of rows that are alike.
        batch_size: samples of an optimizer step, over all devices and micro-batches.
        eval_batch_size: samples of a batch in validation, test and predict.
        num_workers: processes that load, per device; 0 loads in the training process.
        seed: of the order and of every random draw.
        num_micro_batches: a step's samples on a device are run in so many parts.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Path | SplitFiles | Tables],
        split: Split,
        columns: Mapping[str, Column | None],
        inputs: Mapping[str, InputKind],
        targets: Mapping[str, TargetKind],
        max_bad_fraction: Fraction,
        label_fraction: Fraction,
        modality_dropout: Fraction | Mapping[str, Fraction],
        restrict_paths: bool,
        license: str | None,
        languages: Sequence[str] | None,
        bucket: Buckets,
        batch_size: PositiveInt,
        eval_batch_size: PositiveInt,
        num_workers: NonNegativeInt,
        seed: Seed,
        num_micro_batches: PositiveInt,
    ) -> None:
        super().__init__()
        self._source = source
        self._split = split
        self._wanted = dict(columns)
        self._inputs = dict(inputs)
        self._targets = dict(targets)
        self.max_bad_fraction = max_bad_fraction
        self.label_fraction = label_fraction
        self.modality_dropout = modality_rates(modality_dropout, list(inputs))
        self.restrict_paths = restrict_paths
        self.license = license
        self.languages = languages
        self.bucket = bucket
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_micro_batches = num_micro_batches
        self.notes: list[str] = []  # for the user, before training
        self.without: Mapping[str, str] = {}  # by target, the overrides that train without it
        self.first_step = 0  # of training; Lightning asks for the loader before it restores its own count
        self.tables: dict[str, Any] = {}
        self.inputs: dict[str, InputKind] = {}
        self.targets: dict[str, TargetKind] = {}
        self._lengths: tuple[np.ndarray, bool] | None = None  # of each training row, for batches of similar rows

    @property
    def known_targets(self) -> dict[str, Any]:
        """What was learned from the training split for each of its targets."""
        return {name: target.known for name, target in self.targets.items()}

    def names(self) -> dict[str, list[str]]:
        """The names of indices: the words of each text input ("inputs.text"), the classes of each target."""
        words = {f"inputs.{n}": kind.words() for n, kind in self.inputs.items() if isinstance(kind, HasVocabulary)}
        return words | {f"targets.{n}": list(known.names) for n, known in self.known_targets.items()}

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch of training."""
        self._check_trains()
        return len(self.tables["train"] if self._found.order is None else self._found.order)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch of training."""
        return len(self._steps(rank=0, world_size=1, limit=1.0))

    def read(
        self, vocabulary_folder: str | Path, *, training: bool, bound: bool = False, predicting: bool = False
    ) -> None:
        """Open the tables, and learn the vocabularies, or load them if the folder already has them.

        Several processes of one run may call this at once: the first one learns.

        Args:
            vocabulary_folder: the run folder.
            training: whether there must be a training split.
            bound: whether a complete checkpoint of that folder depends on its vocabularies. If so, they are loaded for
                any data. Otherwise they are learned again if they do not fit the data.
            predicting: whether all rows of a lone table are the test split, and columns of inputs may be missing, as
                for predictions and for zero-shot classification.

        Raises:
            ConfigError: if the folder, a table or a column is missing or unusable, or if a required vocabulary is
                damaged.
        """
        vocabulary_folder, split = Path(vocabulary_folder), self._split
        if predicting:
            split = AllRows(column=split.column, fractions=split.fractions, group=split.group)
        self._found = self._with_turns(
            tables_of(self._source(), split, restrict_paths=self.restrict_paths, wanted=self._named())
        )
        self.folder, self.tables = self._found.folder, dict(self._found.splits)
        if training and "train" not in self.tables:
            raise no_table(self._found, "train")
        name, first = next(iter(self.tables.items()))
        wanted = self._named()
        where, names = self._found.names[name], first.column_names
        missing = [] if training else [t for t in self._targets if not set(_flat([wanted[t] or []])) <= set(names)]
        absent = absent_columns(names, {m: wanted[m] for m in self._inputs}) if predicting else {}
        results = {name: column for name, column in wanted.items() if name not in missing and name not in absent}
        self.columns = find_columns(names, results, where=where, likely=self.guessed_columns)
        # the numbers of a vector keep their positions
        self.columns |= {m: c for m, parts in absent.items() if (c := wanted[m]) and len(parts) < len(_flat([c]))}
        if not any(m in self.columns for m in self._inputs):
            raise no_input(list(self._inputs), names, where=where, likely=self.guessed_columns())
        for name, table in self.tables.items():
            place = self._found.folder_of(name)
            check_rows(table, self._found.names[name], self._paths(), place, restrict_paths=self.restrict_paths)
        if training:
            check_size(self.epoch_size, self.batch_size, self.folder)
        self.notes = list(self._found.notes)
        self.notes += [f"{where} has no column {self._wanted[name]}: its rows are without a {name}" for name in missing]
        for name, parts in absent.items():
            what = f"values of {name} are" if name in self.columns else f"input {name} is"
            self.notes.append(f"{where} has no column {', '.join(parts)}: the {what} missing in every row")
        vocabulary_folder.mkdir(parents=True, exist_ok=True)
        # existing files are only read: the folder may be on a read-only disk
        is_read = not training and (vocabulary_folder / RECORD).is_file()
        with nullcontext() if is_read else FileLock(vocabulary_folder / ".vocabulary.lock"):
            self._vocabularies(vocabulary_folder, bound=bound or not training)
            if training and self.bucket.by is not None:
                self._lengths = row_lengths(
                    self.bucket,
                    self.tables["train"],
                    columns=self.columns,
                    inputs=self.inputs,
                    folder=self._found.folder_of("train"),
                    cache=vocabulary_folder,
                )
                self._steps(rank=0, world_size=1, limit=1.0)  # raises if the budget is too small
        self.notes += [
            *self._unseen(),
            *([*self._cut(), *self._names_as_written(), *self._used_columns(), *self._rates()] if training else ()),
        ]

    def _with_turns(self, tables: Tables) -> Tables:
        """The tables, with columns for the contents of the turns of their dialogues."""
        return with_turn_columns(
            tables,
            self._named(),
            media=[m for m, reader in self._inputs.items() if reader.kind not in NO_FILES],
            labels=list(self._targets),
            several=[m for m, reader in self._inputs.items() if isinstance(reader, CountsMedia)],
        )

    def restore(self, vocabulary_folder: str | Path) -> None:
        """Load only the vocabularies of a run, for use of its model without its tables.

        Args:
            vocabulary_folder: the run folder.

        Raises:
            ConfigError: if it has none.
        """
        vocabulary_folder = Path(vocabulary_folder)
        known = read_vocabulary(vocabulary_folder)
        if known is None:
            raise ConfigError(f"{vocabulary_folder} holds no vocabulary\n    name the folder of a training run")
        self._restore(vocabulary_folder, known)

    def fit_without_tables(self, vocabulary_folder: str | Path) -> None:
        """Load what inputs take from pretrained weights, and write it into a folder, for `restore`.

        Raises:
            ConfigError: if an input or a target learns from a table.
        """
        learning = {n: part for n, part in (self._inputs | self._targets).items() if isinstance(part, FittedKind)}
        for name, part in learning.items():
            if not isinstance(part, TextInput) or part.pretrained is None:
                raise ConfigError(
                    f"data: {name} learns from the training split, so that a trained run is needed\n"
                    "    fix: set run_dir to the folder of a run"
                )
            part.fit([], Path())
        self.inputs, self.targets = dict(self._inputs), dict(self._targets)
        Path(vocabulary_folder).mkdir(parents=True, exist_ok=True)
        write_vocabulary(
            Path(vocabulary_folder),
            learning,
            {"origin": [], "inputs": list(self.inputs), "targets": list(self.targets)},
        )

    def _named(self) -> dict[str, Column | None]:
        return {name: self._wanted.get(name) for name in [*self._inputs, *self._targets]}

    def guessed_columns(self) -> dict[str, Column]:
        """For messages: columns that probably contain the inputs and targets whose column is not found."""
        self._check_is_read()
        kinds = {name: read_as(part) for name, part in (self._inputs | self._targets).items()}
        return guess_types(next(iter(self.tables.values())), self._named(), kinds)

    def _vocabularies(self, folder: Path, *, bound: bool) -> None:
        try:
            known = read_vocabulary(folder)
            if known is not None and (bound or known["origin"] == self._origin()):
                self._restore(folder, known)
                return
        except ConfigError as error:
            if bound:
                raise
            self.notes.append(f"{str(error).splitlines()[0]}; it is learned again, as no checkpoint depends on it")
        if "train" not in self.tables:
            raise ConfigError(
                f"{folder} holds no vocabulary and {self.folder} has no train table to learn one from\n"
                "    set run_dir to the folder of the training run"
            )
        self._fit()
        learned = {n: part for n, part in (self.inputs | self.targets).items() if isinstance(part, FittedKind)}
        facts = {"origin": self._origin(), "inputs": list(self.inputs), "targets": list(self.targets)}
        write_vocabulary(folder, learned, facts)

    def _unseen(self) -> Iterator[str]:
        """Labels of other splits that are not in the training split. Their rows count as unlabelled."""
        for split in (name for name in self.tables if name != "train"):
            for name, target in self.targets.items():
                unseen: Counter[str] = Counter()
                if isinstance(target, ClassLabel) and self.columns.get(name) in self.tables[split].column_names:
                    unseen = target.unseen(cells_of(self.tables[split], self.columns[name]))
                if unseen:
                    shown = ", ".join(f"{in_short(label)!r} ({count})" for label, count in unseen.most_common(5))
                    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
                    yield (
                        f"{self._found.names[split]}: {unseen.total()} rows have a {name} that training never saw"
                        f" and count as without one: {shown}{more}"
                    )

    def _names_as_written(self) -> Iterator[str]:
        """Notes about the spelling of class names."""
        where, table = self._found.names["train"], self.tables["train"]
        for name, target in self.targets.items():
            column = self.columns.get(name)
            if (
                isinstance(target, ClassLabel | MultiLabel)
                and isinstance(column, str)
                and isinstance(table, SupportsColumns)
            ):
                yield from notes_of_names(name, target, self._cells(name), column=column, where=where)

    def _used_columns(self) -> Iterator[str]:
        """Notes about the columns that are used."""
        table, kinds = self.tables["train"], ("class", "classes", "number", "answer")
        results = {n: c for n, c in self.columns.items() if set(_flat([c])) <= set(table.column_names)}
        if isinstance(table, SupportsColumns):
            yield from notes_of_columns(
                table,
                results,
                self._wanted,
                inputs=[name for name in self.inputs if name in results],
                targets=[name for name, part in self.targets.items() if name in results and read_as(part) in kinds],
                where=self._found.names["train"],
            )

    def _rates(self) -> Iterator[str]:
        """Notes about audio arrays without a sample rate, which are read at the rate of the model."""
        where, table = self._found.names["train"], self.tables["train"]
        folder = self._found.folder_of("train")
        for name, reader in self.inputs.items():
            if isinstance(reader, AudioInput) and self.columns.get(name) in table.column_names:
                filled = (cell for cell in self._cells(name) if not is_empty(cell))
                if any(is_without_rate(cell, folder) for cell in islice(filled, 1)):
                    yield (
                        f"{where}: the sounds of {self.columns[name]} are arrays without a rate, and are read as"
                        f" {reader.sample_rate} Hz (data.inputs.{name}.sample_rate)\n    if they have another one,"
                        ' write {"array": [...], "sampling_rate": 44100}, or a .npz with array and sampling_rate'
                    )

    def columns_not_read(self) -> list[str]:
        """The columns of the first table that neither an input nor a target reads."""
        return columns_not_read(next(iter(self.tables.values())), self.columns)

    def _cut(self) -> Iterator[str]:
        """Notes about texts that are longer than the maximum length."""
        inputs = [(f"data.inputs.{m}", m, part) for m, part in self.inputs.items() if isinstance(part, TextInput)]
        targets = [
            (f"data.targets.{t}.text", t, part.text) for t, part in self.targets.items() if isinstance(part, TextTarget)
        ]
        where, table = self._found.names["train"], self.tables["train"]
        for key, name, reader in [*inputs, *targets]:
            if self.columns.get(name) in table.column_names:
                yield from cut_texts(key, reader, self._cells(name), where=where, num_rows=len(table))

    def _origin(self) -> list[str]:
        """The options and columns on which the vocabularies depend."""
        recipes = [
            part.fingerprint
            for part in [*self._inputs.values(), *self._targets.values()]
            if isinstance(part, FittedKind)
        ]
        return [self.tables["train"]._fingerprint, json.dumps(self.columns), *recipes]

    def _paths(self) -> dict[str, Column]:
        """The columns whose cells can be paths."""
        return {
            m: self.columns[m]
            for m, reader in self._inputs.items()
            if m in self.columns and reader.kind not in NO_FILES
        }

    def _restore(self, folder: Path, known: Mapping[str, Any]) -> None:
        self.inputs = {m: reader for m, reader in self._inputs.items() if m in known["inputs"]}
        self.targets = {t: target for t, target in self._targets.items() if t in known["targets"]}
        for name, part in (self.inputs | self.targets).items():
            if isinstance(part, FittedKind):
                part.restore(folder, name)

    def _fit(self) -> None:
        """Fit inputs and targets on the training split. A target without any value in it is dropped.

        Raises:
            ConfigError: if the column of an input is empty, or if a column does not have the type of its input or
                target.
        """
        self.inputs = {m: reader for m, reader in self._inputs.items() if m in self.columns}
        self._check_cells()
        for name, target in self._targets.items():
            if name in self.columns:
                with self._naming_column(name, target):
                    target.fit(self._cells(name), self._found.folder_of("train"))
        self.targets = {name: target for name, target in self._targets.items() if target.known.names}
        self._check_classes()
        for name, reader in self.inputs.items():
            if isinstance(reader, FittedKind):
                with self._naming_column(name, reader):
                    reader.fit(self._cells(name), self._found.folder_of("train"))

    @contextmanager
    def _naming_column(self, name: str, part: object) -> Iterator[None]:
        """Add the name of the column to errors about its numbers."""
        try:
            yield
        except ConfigError as error:
            if read_as(part) not in ("number", "vector"):
                raise
            raise ConfigError(f"data.columns.{name}={self.columns[name]}: {error}") from error

    def _check_cells(self) -> None:
        parts = self.inputs | self._targets
        faults = faults_of_cells(
            self.tables["train"],
            {name: self.columns[name] for name in parts if name in self.columns},
            {name: read_as(part) for name, part in parts.items()},
            inputs=self.inputs,
            where=self._found.names["train"],
            folder=self._found.folder_of("train"),
        )
        if messages := [fault for _, fault in faults]:
            raise ConfigError("\n".join(messages))

    def _check_classes(self) -> None:
        for name, target in self.targets.items():
            column = self.columns[name]
            if isinstance(target, ClassLabel) and isinstance(column, str):
                tables = {s: table for s, table in self.tables.items() if s != "train" and column in table.column_names}
                others = {self._found.names[s]: cells_of(table, column) for s, table in tables.items()}
                where = self._found.names["train"]
                note = check_classes(
                    name,
                    target.known.names,
                    sum(target.known.counts),
                    column=column,
                    where=where,
                    others=others,
                    without=self.without.get(name),
                )
                self.notes += [] if note is None else [note]

    def _cells(self, name: str) -> Iterator[Any]:
        """The cells of an input or target in the training split."""
        return cells_of(self.tables["train"], self.columns[name])

    def row_facts(self) -> dict[str, RowFacts]:
        """By split, the number of rows and digests of all cells that are read, for comparison by a resumed run."""
        read = [self.columns[name] for name in [*self.inputs, *self.targets] if name in self.columns]
        media = [column for column in self._paths().values() if column in read]
        columns = {name: ["id", *_flat(read)] for name in self.tables}
        if self.bucket.by is not None and self.bucket.by not in self.inputs and "train" in columns:
            columns["train"].append(self.bucket.by)
        return {
            name: digest_rows(table, columns[name], media=_flat(media), folder=self._found.folder_of(name))
            for name, table in self.tables.items()
        }

    def id_digest(self, name: str) -> str:
        """The entry of checkpoints older than `row_facts`: the number of rows of a split, and a digest of some ids."""
        table = self.tables[name]
        some = range(0, len(table), max(1, len(table) // SAMPLED_IDS))
        ids = "\n".join(id_of(row_at(table, row), row) for row in some)
        return f"{len(table)} ({hashlib.sha256(ids.encode()).hexdigest()[:12]})"

    def split(self, name: str) -> EvalSplit:
        """A split for evaluation.

        Raises:
            ConfigError: if there is no such table, or no table was opened.
        """
        self._check_is_read()
        if name not in self.tables:
            raise no_table(self._found, name)
        return EvalSplit(self.tables[name], **self.parts(name))

    def has_row(self, split: str, *, needs: Sequence[str], targets: Sequence[str]) -> bool:
        """Whether a row of a split has all of these inputs (if `needs` is empty, any input) and all of these targets.

        A class that is not in the training split does not count as a target.
        """
        table = self.tables[split]
        for cells in rows_at(table, range(len(table))):
            available = [m for m in self.inputs if not is_empty(readable_cell(cells, self.columns.get(m)))]
            if available and set(needs) <= set(available) and all(self._is_labelled(cells, n) for n in targets):
                return True
        return False

    def _is_labelled(self, cells: Mapping[str, Any], name: str) -> bool:
        target, cell = self.targets.get(name), readable_cell(cells, self.columns.get(name))
        return target is not None and not is_empty(cell) and read_or(None, cell, target.load) is not None

    def filled(self, split: str) -> dict[str, int] | None:
        """The number of rows of a split with each input and target; None if the table would have to be read for it."""
        filled = self._filled_rows(split)
        return None if filled is None else {name: sum(rows) for name, rows in filled.items()}

    def num_usable(self, split: str, tasks: Iterable[tuple[Sequence[str] | None, Sequence[str]]]) -> int | None:
        """The number of rows of a split that at least one task can use; None if the table would have to be read for it.

        Args:
            split: its name.
            tasks: inputs and targets that each task requires of a row. It requires all of the inputs (any one if the
                list is empty; none if it is None), and all of the targets.
        """
        filled = self._filled_rows(split)
        if filled is None:
            return None
        size = len(self.tables[split])
        nothing = [False] * size
        inputs = [filled.get(name, nothing) for name in self.inputs]
        usable = [False] * size
        for needs, targets in tasks:
            wanted = [filled.get(name, nothing) for name in (*(needs or ()), *targets)]
            for row in range(size):
                has_input = needs is None or bool(needs) or any(of[row] for of in inputs)
                usable[row] = usable[row] or (has_input and all(of[row] for of in wanted))
        return sum(usable)

    def _filled_rows(self, split: str) -> dict[str, list[bool]] | None:
        """By input or target, whether each row has it."""
        table = self.tables[split]
        is_columnar = isinstance(table, SupportsColumns)
        if not is_columnar or len(table) > MAX_COUNTED:
            return None
        known = {n: c for n, c in self.columns.items() if n in self.inputs or n in self.targets}
        available = {n: c for n, c in known.items() if set([c] if isinstance(c, str) else c) <= set(table.column_names)}
        return {n: [not is_empty(cell) for cell in cells_of(table, c)] for n, c in available.items()}

    def folder_of(self, split: str) -> Path:
        """The folder of the relative paths of a split; `folder` contains those of all splits."""
        return self._found.folder_of(split)

    def parts(self, split: str = "train") -> dict[str, Any]:
        """The arguments with which a split of this data is built."""
        return {
            "folder": self.folder_of(split),
            "columns": self.columns,
            "inputs": self.inputs,
            "targets": self.targets,
            "seed": self.seed,
        }

    def example(self) -> Batch:
        """A batch of two readable rows, as an example of the shapes.

        Raises:
            ConfigError: if none of the first rows is readable, or no table was opened.
        """
        self._check_is_read()
        name, table = next(iter(self.tables.items()))
        split = TrainSplit(table, **self.parts(name))
        samples: list[Sample] = []
        for row in range(min(len(table), NUM_LOOKED_AT)):
            try:
                samples.append(split.sample(row, seed=0, train=False))
            except SampleError as error:
                fault, fix = one_line(str(error)), _fix_of(error)
            if len(samples) == 2:
                break
        if not samples:
            raise ConfigError(
                f"none of the first {min(len(table), NUM_LOOKED_AT)} rows of {self.folder} can be read, the last"
                f" because of {fault}\n    {fix}"
            )
        return self.collate().batch((samples * 2)[:2])

    def train_dataloader(self) -> DataLoader[Any]:
        """The steps of training, from `first_step` on; without a trainer, those of one process."""
        self._check_trains()
        split = TrainSplit(
            self.tables["train"],
            order=self._found.order,
            label_fraction=self.label_fraction,
            modality_dropout=self.modality_dropout,
            **self.parts(),
        )
        steps = self._steps(
            **self._place(),
            limit=1.0 if self.trainer is None else self.trainer.limit_train_batches,
        )
        return self._loader(split, steps, self.num_micro_batches)

    def _steps(self, *, rank: int, world_size: int, limit: int | float) -> TrainSteps | BucketedSteps:
        shared: dict[str, Any] = {
            "batch_size": self.batch_size,
            "rank": rank,
            "world_size": world_size,
            "num_micro_batches": self.num_micro_batches,
            "first_step": self.first_step,
            "limit": limit,
        }
        if self._lengths is None:
            return TrainSteps(num_samples=self.epoch_size, **shared)
        order = self._found.order or KeyedOrder(self.epoch_size)
        shared |= {"window": self.bucket.window, "max_tokens": self.bucket.max_tokens}
        try:
            lengths, names = self._lengths
            return BucketedSteps(lengths=lengths, names=names, order=order, seed=self.seed, **shared)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The validation split; an empty list if there is none."""
        self._check_is_read()
        return self.loader_of(self.split("val")) if "val" in self.tables else []

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self.loader_of(self.split("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self.loader_of(self.split("test"))

    def _check_is_read(self) -> None:
        if not self.tables:
            raise ConfigError(
                "the data has no tables yet\n    call data.read(Path(RUN_DIR), training=False) first;"
                " with training=True it learns the vocabularies"
            )

    def _check_trains(self) -> None:
        self._check_is_read()
        if "train" not in self.tables:
            raise no_table(self._found, "train")

    def _place(self) -> dict[str, int]:
        """The rank and the number of processes; 0 of 1 without a trainer, as in a notebook."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def loader_of(self, split: EvalSplit | Subset) -> DataLoader[Any]:
        """Return a loader for evaluation over a split, or over some of its rows; with a trainer, for this rank.

        Args:
            split: as `split` returns it, or derived from it, such as a `CorruptedSplit`.
        """
        steps = EvalSteps(
            num_samples=len(split),
            batch_size=self.eval_batch_size,
            **self._place(),
        )
        return self._loader(split, steps, 1)

    def collate(self, num_micro_batches: int = 1) -> Collate:
        """The function that makes a batch of samples."""
        return Collate(inputs=self.inputs, targets=self.targets, num_micro_batches=num_micro_batches)

    def _loader(self, split: Any, steps: Any, num_micro_batches: int) -> DataLoader[Any]:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the workers' fork
        return make_loader(
            split,
            steps,
            self.collate(num_micro_batches),
            num_workers=self.num_workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )


def _flat(columns: Sequence[Column]) -> list[str]:
    """All columns in one list; an input may have several."""
    return [part for column in columns for part in ([column] if isinstance(column, str) else column)]


def _fix_of(error: SampleError) -> str:
    """The fix if no row can be read, from the error of the last row."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    if cause is not None:
        return "fix the paths in the table: they start from its folder"
    return "change the rows as this says, or name other columns by data.columns"
