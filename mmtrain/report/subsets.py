"""How a task fares with some of the modalities alone, made ready for the page: a heat map, a row a subset."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# as mmtrain/lit.py names what it judges on a subset
_ALONE = re.compile(r"(?P<task>[^/]+)/(?P<subset>[^/]+)_only/(?P<metric>.+)")


class SubsetCell(NamedTuple):
    """One metric of a subset: its value, how far it is below that of all modalities, and its way up from chance.

    `share` is 0 at chance or below and 1 at the value of all modalities or above; 0, which has no colour, where chance
    is not known, as of an error, which is good when it is low.
    """

    value: float
    drop: float
    share: float


class SubsetTable(NamedTuple):
    """A task's heat map: `rows` are the modalities that are there, True where they are, and a cell a metric."""

    task: str
    modalities: list[str]
    metrics: list[str]
    rows: list[tuple[list[bool], list[SubsetCell]]]


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
    metrics = list(next(iter(subsets.values())))
    whole = {metric: test[f"{task}/{metric}"] for metric in metrics}
    judged = {tuple(modalities): whole, **dict(sorted(subsets.items(), key=lambda item: (-len(item[0]), item[0])))}
    return SubsetTable(
        task=task,
        modalities=modalities,
        metrics=metrics,
        rows=[
            ([m in subset for m in modalities], [_cell(figures[metric], whole[metric]) for metric in metrics])
            for subset, figures in judged.items()
        ],
    )


def _cell(figure: Mapping[str, Any], whole: Mapping[str, Any]) -> SubsetCell:
    value, best = float(figure["value"]), float(whole["value"])
    if whole["chance"] is None:
        return SubsetCell(value=value, drop=best - value, share=0.0)
    floor = float(whole["chance"])
    share = (value - floor) / (best - floor) if best > floor else float(value >= best)
    return SubsetCell(value=value, drop=best - value, share=min(max(share, 0.0), 1.0))
