"""How a task fares with some of the modalities alone, made ready for the page: a heat map, a row a subset.

A subset is compared with all modalities on the same rows, because rows without any of its modalities are not judged.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmtrain.metrics.direction import best_mode

# as mmtrain/training/lit_module.py names what it judges on a subset
_ALONE = re.compile(r"(?P<task>[^/]+)/(?P<subset>[^/]+)_only/(?P<metric>.+)")


class SubsetCell(NamedTuple):
    """One metric of a subset: its value, its distance from all modalities, and its way from chance to these.

    Attributes:
        value: of the subset.
        drop: the value of all modalities on the same rows, minus this one; None where only other rows are known.
        share: 0 at chance or worse, 1 at the value of all modalities or better. It is 0, which has no colour, where
            chance is not known, and where all modalities together are no better than chance.
    """

    value: float
    drop: float | None
    share: float


class SubsetTable(NamedTuple):
    """A task's heat map.

    Attributes:
        task: its name.
        modalities: the columns of what is there.
        metrics: the other columns.
        rows: for each subset, True for the modalities that are there, and a cell for each metric; None without a value.
        num_rows: how many rows each subset was judged on; None where that is not known.
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
    """Whether a test metric is that of some modalities alone."""
    return _ALONE.fullmatch(metric) is not None


def subset_tables(test: Mapping[str, Mapping[str, Any]]) -> list[SubsetTable]:
    """A table for each task that was judged on subsets, all modalities first, then the larger subsets.

    Args:
        test: by metric, {"value": ..., "chance": ...}, as summary.json has it.
    """
    by_task: dict[str, dict[tuple[str, ...], dict[str, Mapping[str, Any]]]] = {}
    for name, figure in test.items():
        found = _ALONE.fullmatch(name)
        if found is not None:
            subset = tuple(found["subset"].split("+"))
            by_task.setdefault(found["task"], {}).setdefault(subset, {})[found["metric"]] = figure
    return [_table(task, subsets, test) for task, subsets in by_task.items()]


def _table(
    task: str,
    subsets: Mapping[tuple[str, ...], Mapping[str, Mapping[str, Any]]],
    test: Mapping[str, Mapping[str, Any]],
) -> SubsetTable:
    modalities = sorted({m for subset in subsets for m in subset})
    metrics = [m for m in dict.fromkeys(m for figures in subsets.values() for m in figures) if f"{task}/{m}" in test]
    whole = {metric: test[f"{task}/{metric}"] for metric in metrics}
    judged = {tuple(modalities): whole, **dict(sorted(subsets.items(), key=lambda item: (-len(item[0]), item[0])))}
    return SubsetTable(
        task=task,
        modalities=modalities,
        metrics=metrics,
        rows=[
            (
                [m in subset for m in modalities],
                [_cell(metric, figures[metric], whole[metric]) if metric in figures else None for metric in metrics],
            )
            for subset, figures in judged.items()
        ],
        num_rows=[
            next((figure["rows"] for figure in figures.values() if "rows" in figure), None)
            for figures in judged.values()
        ],
    )


def _cell(metric: str, figure: Mapping[str, Any], whole: Mapping[str, Any]) -> SubsetCell:
    value, best = float(figure["value"]), _on_same_rows(figure, whole)
    chance = whole["chance"] if figure["chance"] is None else figure["chance"]
    drop = None if best is None else best - value
    if chance is None or best is None:
        return SubsetCell(value=value, drop=drop, share=0.0)
    way = (float(chance) - best) if best_mode(metric) == "min" else (best - float(chance))
    if way <= 0:
        return SubsetCell(value=value, drop=drop, share=0.0)
    share = (value - float(chance)) / (best - float(chance))
    return SubsetCell(value=value, drop=drop, share=min(max(share, 0.0), 1.0))


def _on_same_rows(figure: Mapping[str, Any], whole: Mapping[str, Any]) -> float | None:
    """What all modalities score on the rows of a figure; runs of older versions have not counted rows."""
    same = figure.get("all_modalities")
    if same is not None:
        return float(same)
    return float(whole["value"]) if figure.get("rows") == whole.get("rows") else None
