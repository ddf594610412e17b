"""Tests of a trained model beyond the test split itself: corrupted inputs, groups of rows, and zero-shot classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer

from mmtrain.data.corruptions import CorruptedSplit, Corruption, applies_to
from mmtrain.data.dataset import EvalSplit
from mmtrain.data.loader import EvalSteps, make_loader
from mmtrain.data.module import DataModule
from mmtrain.data.sampling.subset import Subset, groups_of
from mmtrain.data.tables.columns import name_of
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import write_csv
from mmtrain.metrics.chance import CHANCE_METRICS, chance_scores
from mmtrain.metrics.retrieval import RetrievalMetric
from mmtrain.modes.search.classes import as_words, load_class_names, load_templates, match_labels
from mmtrain.modes.search.towers import Towers
from mmtrain.modes.search.zero_shot import Figures, class_vectors, figures, probabilities
from mmtrain.training.evaluation import Table, evaluate
from mmtrain.training.lit_module import LitModel

CALIBRATION = "calibration_error"


class CorruptionResult(NamedTuple):
    """One metric for one corruption at one severity, with the value on the clean split."""

    corruption: str
    modality: str
    severity: int
    metric: str
    value: float | None
    clean: float | None
    chance: float | None


class GroupResult(NamedTuple):
    """One metric for one group of rows."""

    group: str
    rows: int
    metric: str
    value: float | None
    chance: float | None


def corruptions_of(lit: LitModel, data: DataModule, names: Sequence[str]) -> list[tuple[str, str]]:
    """Each corruption with the modality that it changes.

    Raises:
        ConfigError: for a corruption that changes none of the run's modalities.
    """
    results = []
    for name in names:
        mine = [(name, m) for m in lit.model.encoders if applies_to(name, data.inputs[m].kind)]
        if not mine:
            read = ", ".join(lit.model.encoders)
            raise ConfigError(f"test.corruptions=[{name}]: cannot be applied to {read}\n    fix: remove {name}")
        results += mine
    return results


def evaluate_corrupted(
    lit: LitModel, data: DataModule, trainer: Trainer, *, names: Sequence[str], severities: Sequence[int], clean: Table
) -> list[CorruptionResult]:
    """Test once for each corruption, modality and severity.

    Args:
        lit: with the weights to test.
        data: with a test split.
        trainer: which has tested the clean split.
        names: of corruptions.
        severities: of each corruption.
        clean: metrics on the clean split.
    """
    results = []
    split = data.split("test")
    for name, modality in corruptions_of(lit, data, names):
        for severity in severities:
            corrupted = CorruptedSplit(split, Corruption(name, modality, severity))
            table = evaluate(lit.model, data.loader_of(corrupted), trainer=trainer)
            for metric, figure in clean.items():
                if metric in table or metric in headline(lit, clean):
                    now = table.get(metric, {})
                    shown = (now.get("value"), figure["value"], now.get("chance"))
                    results.append(CorruptionResult(name, modality, severity, metric, *shown))
    return results


def evaluate_groups(lit: LitModel, data: DataModule, trainer: Trainer, *, column: str) -> list[GroupResult]:
    """Metrics of each group of rows.

    Retrieval uses the rows of a group as queries and searches all rows, with the vectors that the last test has
    collected. Other tasks are tested on the group only.

    Args:
        lit: which has just tested the clean split.
        data: with that split.
        trainer: which tested it.
        column: with the groups.
    """
    split, metrics = data.split("test"), lit.evaluation.metrics
    groups = groups_of(split, column, where="the test split")
    ranking = {n: m for n, m in metrics.items() if isinstance(m, RetrievalMetric)}
    tables: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for name, metric in ranking.items():
        for group, positions in groups.items():
            tables[group] |= _of_asking(name, metric, positions)
    if len(ranking) < len(metrics):
        for group, positions in groups.items():
            table = evaluate(lit.model, data.loader_of(Subset(split, positions)), trainer=trainer)
            tables[group] |= {m: f for m, f in table.items() if m.split("/")[0] not in (*ranking, "loss")}
    sizes = {group: len(positions) for group, positions in groups.items()}
    return [GroupResult(g, sizes[g], m, f["value"], f["chance"]) for g, t in tables.items() for m, f in t.items()]


def _of_asking(name: str, metric: RetrievalMetric, rows: Sequence[int]) -> dict[str, dict[str, float | None]]:
    metric.asking, metric._computed = torch.tensor(rows), None  # compute caches its result
    try:
        values = metric.compute()
    finally:
        metric.asking, metric._computed = None, None
    chance = chance_scores(values)
    scalars = {n: v for n, v in values.items() if v.ndim == 0 and not n.endswith(CHANCE_METRICS) and "/shown" not in n}
    return {f"{name}/{n}": {"value": float(v), "chance": chance.get(n)} for n, v in scalars.items()}


def headline(lit: LitModel, table: Table) -> list[str]:
    """The monitored metric of each task, and its calibration error if it has one."""
    wanted = [f"{n}/{m}" for n, task in lit.model.named_tasks().items() for m in (task.monitor, CALIBRATION)]
    return [metric for metric in wanted if metric in table]


def evaluate_zero_shot(
    lit: LitModel,
    data: DataModule,
    *,
    column: str,
    templates: str | Sequence[str],
    class_names: str | Sequence[str] | Mapping[str, str] | None,
) -> Figures:
    """Classify rows by the names of the classes of a column, for each modality other than text.

    Args:
        lit: with a contrastive task.
        data: with the test split.
        column: with the class of each row.
        templates: see `mmtrain.modes.search.classes.load_templates`.
        class_names: see `load_class_names` there; None for the values of the column.

    Raises:
        ConfigError: if the run has no text and another modality, the column has fewer than two values, or one that
            belongs to no class.
    """
    towers = Towers(lit.model, data.inputs, where="this run")
    text = towers.of_kind("text")
    split = data.split("test")
    groups = {name: rows for name, rows in _classes(split, column).items() if rows}
    if class_names is None and len(groups) < 2:
        raise ConfigError(
            f"test.zero_shot={column}: {len(groups)} values in the test split\n    fix: name a column with more values"
        )
    known = {label: as_words(label) for label in groups} if class_names is None else load_class_names(class_names)
    names, position = list(known.values()), match_labels(groups, known)
    classes = class_vectors(towers, names, load_templates(templates))
    truth = {row: position[label] for label, rows in groups.items() for row in rows}
    chosen = Subset(split, sorted(truth))
    steps = EvalSteps(num_samples=len(chosen), batch_size=data.eval_batch_size)
    results: dict[str, tuple[list[torch.Tensor], list[int]]] = {m: ([], []) for m in towers.modalities if m != text}
    for (batch,) in make_loader(chosen, steps, data.collate(), num_workers=data.num_workers, pin_memory=False):
        for m, (vectors, labels) in results.items():
            present = batch.present[m] & (batch.rows >= 0)
            if present.any():
                vectors.append(towers.of_batch(batch, m)[present])
                labels += [truth[row] for row in batch.rows[present].tolist()]
    out: Figures = {}
    for m, (vectors, labels) in results.items():
        if labels:
            chances = probabilities(torch.cat(vectors), classes, scale=towers.scale)
            scores = figures(chances, torch.tensor(labels), num_classes=len(names))
            out |= {f"zero_shot_{m}/{name}": figure for name, figure in scores.items()}
    return out


def _classes(split: EvalSplit, column: str) -> Mapping[str, list[int]]:
    """Rows by class; rows without a class are omitted."""
    table = split.table
    if column not in table.column_names:
        raise ConfigError(
            f"test.zero_shot={column}: the test split has the columns {', '.join(table.column_names)}\n"
            "    fix: name the column with the class"
        )
    groups: dict[str, list[int]] = {}
    for row, cell in enumerate(table[column]):
        name = name_of(cell)
        if name is not None:
            groups.setdefault(name, []).append(row)
    return dict(sorted(groups.items()))


def write_rows(path: Path, rows: Sequence[CorruptionResult] | Sequence[GroupResult]) -> None:
    """Write one line per row under the names of the fields. Without rows, an earlier file is removed."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_csv(path, rows[0]._fields, rows)
