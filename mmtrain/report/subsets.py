"""Tables of a task with only some modalities, for the page: a heat map with one row per subset.

A subset is compared with all modalities on the same rows, because rows without any of its modalities are not evaluated.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmtrain.metrics.direction import best_mode

# must match the names of metrics on subsets in mmtrain/training/lit_module.py
_ALONE = re.compile(r"(?P<task>[^/]+)/(?P<subset>[^/]+)_only/(?P<metric>.+)")


class SubsetCell(NamedTuple):
    """One metric for a subset: its value, the difference to all modalities, and its position between chance and these.

    Attributes:
        value: value for the subset.
        drop: value for all modalities on the same rows, minus this value; None if only other rows are known.
        share: 0 at chance or worse, 1 at the value of all modalities or better. It is 0, which has no colour, if chance
            is not known, or if all modalities are not better than chance.
    """

    value: float
    drop: float | None
    share: float


class SubsetTable(NamedTuple):
    """The heat map of a task.

    Attributes:
        task: name of the task.
        modalities: columns that show which modalities are present.
        metrics: the other columns.
        rows: for each subset, True for present modalities, and a cell for each metric; None without a value.
        num_rows: number of evaluated rows for each subset; None if it is not known.
    """

    task: str
    modalities: list[str]
    metrics: list[str]
    rows: list[tuple[list[bool], list[SubsetCell | None]]]
    num_rows: list[int | None]

    @property
    def is_counted(self) -> bool:
        """Whether the numbers of rows are known."""
        return any(count is not None for count in self.num_rows)


def is_of_subset(metric: str) -> bool:
    """Whether a test metric is one of a subset of modalities."""
    return _ALONE.fullmatch(metric) is not None


def subset_tables(test: Mapping[str, Mapping[str, Any]]) -> list[SubsetTable]:
    """A table for each task with metrics on subsets: all modalities first, then larger subsets before smaller ones.

    Args:
        test: by metric, {"value": ..., "chance": ...}, as in summary.json.
    """
    by_task: dict[str, dict[tuple[str, ...], dict[str, Mapping[str, Any]]]] = {}
    for name, figure in test.items():
        match = _ALONE.fullmatch(name)
        if match is not None:
            subset = tuple(match["subset"].split("+"))
            by_task.setdefault(match["task"], {}).setdefault(subset, {})[match["metric"]] = figure
    return [_table(task, subsets, test) for task, subsets in by_task.items()]


def _table(
    task: str,
    subsets: Mapping[tuple[str, ...], Mapping[str, Mapping[str, Any]]],
    test: Mapping[str, Mapping[str, Any]],
) -> SubsetTable:
    modalities = sorted({m for subset in subsets for m in subset})
    metrics = [m for m in dict.fromkeys(m for figures in subsets.values() for m in figures) if f"{task}/{m}" in test]
    full = {metric: test[f"{task}/{metric}"] for metric in metrics}
    evaluated = {tuple(modalities): full, **dict(sorted(subsets.items(), key=lambda item: (-len(item[0]), item[0])))}
    return SubsetTable(
        task=task,
        modalities=modalities,
        metrics=metrics,
        rows=[
            (
                [m in subset for m in modalities],
                [_cell(metric, figures[metric], full[metric]) if metric in figures else None for metric in metrics],
            )
            for subset, figures in evaluated.items()
        ],
        num_rows=[
            next((figure["rows"] for figure in figures.values() if "rows" in figure), None)
            for figures in evaluated.values()
        ],
    )


def _cell(metric: str, figure: Mapping[str, Any], full: Mapping[str, Any]) -> SubsetCell:
    value, best = float(figure["value"]), _on_same_rows(figure, full)
    chance = full["chance"] if figure["chance"] is None else figure["chance"]
    drop = None if best is None else best - value
    if chance is None or best is None:
        return SubsetCell(value=value, drop=drop, share=0.0)
    way = (float(chance) - best) if best_mode(metric) == "min" else (best - float(chance))
    if way <= 0:
        return SubsetCell(value=value, drop=drop, share=0.0)
    share = (value - float(chance)) / (best - float(chance))
    return SubsetCell(value=value, drop=drop, share=min(max(share, 0.0), 1.0))


def _on_same_rows(figure: Mapping[str, Any], full: Mapping[str, Any]) -> float | None:
    """The value of all modalities on the rows of a metric; older versions have not counted rows."""
    same = figure.get("all_modalities")
    if same is not None:
        return float(same)
    return float(full["value"]) if figure.get("rows") == full.get("rows") else None
