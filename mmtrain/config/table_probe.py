"""Faults in the first rows of a folder's tables. Imports nothing heavy; `build.py` checks the complete data later."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmtrain.config.provenance import ComposedConfig
from mmtrain.config.task_inputs import faults_of_tasks, reads_fused, required_modalities, tasks_without
from mmtrain.data.tables.cell_checks import NO_FILES, READ_AS
from mmtrain.data.tables.class_checks import check_classes
from mmtrain.data.tables.column_types import guess_types
from mmtrain.data.tables.columns import Column, absent_columns, faults_of_columns, find_columns, name_of, no_input
from mmtrain.data.tables.first_rows import Head, heads_of
from mmtrain.data.tables.folder_tables import SplitFiles
from mmtrain.data.tables.paths import data_folder
from mmtrain.data.tables.row_checks import check_rows
from mmtrain.data.tables.splits import AllRows, Split
from mmtrain.data.tables.table_checks import check_size, faults_of_cells, no_table
from mmtrain.data.tables.tables import SPLITS, Tables
from mmtrain.data.tables.turn_columns import with_turn_columns
from mmtrain.errors import ConfigError

_SPLIT = "mmtrain.data.tables.splits.Split"


def faults_of_folder(run: ComposedConfig, place: Path | Mapping[str, Path]) -> Iterator[str]:
    """Every fault that can be found in the first rows. Other rules report the rest.

    Args:
        run: the configuration.
        place: folder or file of the tables, or the file of each split.
    """
    split = _split(run)
    training = run.get("mode") in ("fit", "plan")
    if split is None:
        return
    try:
        result = heads_of(_confined(run, place), split, _wanted(run))
        if result is None:
            return
        if training and "train" not in result.splits:
            raise no_table(result, "train")
    except ConfigError as error:
        yield _located(run, str(error), _key_of_tables(run))
        return
    look = TableProbe(run, result)
    missing = list(look.missing_columns())
    yield from missing
    if training and run.get("resume") is None:  # a resumed run keeps its vocabularies and classes
        yield from look.rows_of_training()
        yield from look.classes()
        without = list(look.tasks_missing_columns())
        yield from without
        missing += without
    yield from look.found.notes[len(result.notes) :] if missing else ()  # about keys of turns


def _split(run: ComposedConfig) -> Split | None:
    """How a single table is split; None for the user's own class or wrong values, which its constructor reports."""
    node = OmegaConf.to_container(run.get("data.split")) if OmegaConf.is_dict(run.get("data.split")) else {}
    assert isinstance(node, dict)
    if node.pop("_target_", None) != _SPLIT:
        return None
    try:
        cuts = AllRows if _has_new_rows(run) else Split
        return cuts(**{str(key): value for key, value in node.items()})
    except (TypeError, ValueError):
        return None


def _confined(run: ComposedConfig, place: Path | Mapping[str, Path]) -> Path | SplitFiles:
    restrict_paths, root = run.get("data.restrict_paths") is True, run.get("data.source.root")
    if isinstance(place, Path):
        return data_folder(place, restrict_paths=restrict_paths)
    return SplitFiles(place, None if root is None else Path(str(root)).expanduser().absolute())


def _key_of_tables(run: ComposedConfig) -> str:
    return next((key for s in SPLITS if run.get(key := f"data.{s}") is not None), "data.root")


def _places(run: ComposedConfig) -> dict[str, str]:
    """For each name that tasks read or learn, whether it is in inputs or targets."""
    data, tasks = run.cfg.data, [t for t in run.cfg.task.values() if isinstance(t, DictConfig)]
    read = {m for task in tasks for m in required_modalities(task)}
    if any(reads_fused(task) for task in tasks):
        read |= set(map(str, run.cfg.encoder))
    learned = {task.target for task in tasks if "target" in task}
    inputs = dict.fromkeys([str(m) for m in data.inputs if m in read], "inputs")
    return inputs | dict.fromkeys([str(t) for t in data.targets if t in learned], "targets")


def _named(run: ComposedConfig) -> dict[str, Any]:
    """`data.columns`."""
    named = OmegaConf.to_container(run.cfg.data.columns, resolve=True)
    assert isinstance(named, dict)
    return {str(name): column for name, column in named.items()}


def _has_new_rows(run: ComposedConfig) -> bool:
    """Whether all rows of a lone table are used, and inputs may be missing: predictions, zero-shot classification."""
    return run.get("mode") == "predict" or (run.get("mode") == "test" and run.get("test.zero_shot") is not None)


def _wanted(run: ComposedConfig) -> dict[str, Any]:
    """The column of each name that tasks read or learn."""
    named = _named(run)
    return {name: named.get(name) for name in _places(run)}


@dataclass
class TableProbe:
    """The first rows of tables, and a configuration."""

    run: ComposedConfig
    found: Tables

    def __post_init__(self) -> None:
        self.places = _places(self.run)
        self.kinds = {n: READ_AS.get(str(self.run.get(f"data.{p}.{n}._target_"))) for n, p in self.places.items()}
        named = _named(self.run)
        self.wanted: dict[str, Any] = _wanted(self.run)
        media = [name for name, part in self.places.items() if part == "inputs" and self.kinds[name] not in NO_FILES]
        labels = [name for name, part in self.places.items() if part == "targets"]
        self.found = with_turn_columns(self.found, named, media=media, labels=labels)
        split, self.first = next(iter(self.found.splits.items()))
        self.where, self.there = self.found.names[split], list(self.first.column_names)
        if self.run.get("mode") not in ("fit", "plan"):  # new rows need no labels
            self.wanted = {
                name: column
                for name, column in self.wanted.items()
                if self.places[name] == "inputs" or column is None or _has(self.first, column)
            }
        if _has_new_rows(self.run):
            inputs = {name: column for name, column in self.wanted.items() if self.places[name] == "inputs"}
            for name, absent in absent_columns(self.there, inputs).items():
                column = self.wanted.pop(name)
                if left := [part for part in column if part not in absent] if isinstance(column, list) else []:
                    self.wanted[name] = left
        self.guessed_columns = guess_types(self.first, self.wanted, self.kinds)
        self.wrong = faults_of_columns(self.there, self.wanted, where=self.where, likely=lambda: self.guessed_columns)
        right = {name: column for name, column in self.wanted.items() if name not in self.wrong}
        self.columns: dict[str, Column] = find_columns(self.there, right, where=self.where)
        self.spoiled: set[str] = set()  # targets that cannot be learned

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """Tasks that are configured completely; rule_tasks reports the others."""
        data, encoders = self.run.cfg.data, self.run.cfg.encoder
        return {
            str(name): task
            for name, task in self.run.cfg.task.items()
            if isinstance(task, DictConfig)
            and all(m in encoders and m in data.inputs for m in required_modalities(task))
            and ("target" not in task or task.target in data.targets)
        }

    def _inputs(self, columns: Mapping[str, Column]) -> list[str]:
        return [name for name in columns if self.places[name] == "inputs"]

    def missing_columns(self) -> Iterator[str]:
        """Columns that the configuration names but the tables do not have; or any input, if no input has a column."""
        for name, fault in self.wrong.items():
            yield self._located(fault, f"data.columns.{name}")
        if self._inputs(self.wanted) and not self._inputs(self.columns) and not self.wrong:
            error = no_input(self._inputs(self.wanted), self.there, where=self.where, likely=self.guessed_columns)
            yield self._located(str(error), _key_of_tables(self.run))

    def rows_of_training(self) -> Iterator[str]:
        """Faults of cells, ids and paths, and of the number of rows."""
        table, folder = self.found.splits["train"], self.found.folder_of("train")
        where, inputs = self.found.names["train"], self._inputs(self.columns)
        known = {name: column for name, column in self.columns.items() if _has(table, column)}
        facts: dict[str, Any] = {"inputs": inputs, "where": where, "folder": folder, "is_whole": table.is_whole}
        for name, fault in faults_of_cells(table, known, self.kinds, **facts):
            yield self._located(fault, f"data.columns.{name}")
        paths = {name: self.columns[name] for name in inputs if self.kinds[name] not in NO_FILES}
        restrict_paths = self.run.get("data.restrict_paths") is True
        for split, head in self.found.splits.items():
            name = self.found.names[split]
            key, place = _key_of_tables(self.run), self.found.folder_of(split)
            yield from self._error_of(key, check_rows, head, name, paths, place, restrict_paths=restrict_paths)
        size = self.run.get("data.batch_size")
        if table.is_whole and isinstance(size, int) and self.run.get("trainer.find_batch_size") is not True:
            yield from self._error_of("data.batch_size", check_size, len(table), size, folder)

    def classes(self) -> Iterator[str]:
        """Faults of classes, if all rows are known."""
        heads: Mapping[str, Head] = self.found.splits
        if not all(head.is_whole for head in heads.values()):
            return
        complete = {name: task for name, task in self.tasks.items() if self._has_all(task)}
        for name, column in self.columns.items():
            if self.kinds[name] != "class" or not isinstance(column, str) or not _has(heads["train"], column):
                continue
            counts = Counter(c for cell in heads["train"][column] if (c := name_of(cell)) is not None)
            others = {self.found.names[s]: heads[s][column] for s in heads if s != "train"}
            messages = list(
                self._error_of(
                    f"data.columns.{name}",
                    check_classes,
                    *(name, sorted(counts), counts.total()),
                    column=column,
                    where=self.found.names["train"],
                    others=others,
                    without=tasks_without(complete, name),
                )
            )
            self.spoiled |= {name} if messages else set()
            yield from messages

    def _has_all(self, task: DictConfig) -> bool:
        return required_modalities(task) <= set(self.columns) and ("target" not in task or task.target in self.columns)

    def tasks_missing_columns(self) -> Iterator[str]:
        """Tasks whose modality or target is not in the data, even if columns are named as suggested."""
        assumed = (
            self.columns if self._inputs(self.columns) and not self.wrong else {**self.guessed_columns, **self.columns}
        )
        known = {name: self.tasks[name] for name in self.tasks if self.tasks[name].get("target") not in self.spoiled}
        faults = faults_of_tasks(
            known,
            inputs=[m for m in self._inputs(assumed) if m in self.run.cfg.encoder],
            targets=[name for name in assumed if self.places[name] == "targets"],
            columns=self.there,
            likely=lambda: self.guessed_columns,
            useless=[column for name in self.spoiled if isinstance(column := self.columns[name], str)],
        )
        if self._inputs(assumed):  # otherwise no_input has already reported it
            yield from (self._located(fault, key) for key, fault in faults)

    def _error_of(self, key: str, check: Callable[..., Any], *facts: Any, **named: Any) -> Iterator[str]:
        """The error of a check, if it raises one."""
        try:
            check(*facts, **named)
        except ConfigError as error:
            yield self._located(str(error), key)

    def _located(self, fault: str, key: str) -> str:
        return _located(self.run, fault, key)


def _located(run: ComposedConfig, fault: str, key: str) -> str:
    """A fault with the override that causes it, if there is one."""
    where = run.where(key)
    what, *fix = fault.splitlines()
    return "\n".join([f"{what} ({where})" if where.startswith("override ") else what, *fix])


def _has(table: Head, column: Column) -> bool:
    return set([column] if isinstance(column, str) else column) <= set(table.column_names)
