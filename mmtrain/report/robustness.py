"""Tables of corruption tests and group tests, for the page and the card."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class CorruptionTable(NamedTuple):
    """One metric: one row per corruption, one column per severity; None if there was nothing to evaluate.

    Attributes:
        metric: name of the metric.
        clean: its value on the clean split.
        chance: score of guessing on the clean split; None if it is not known.
        severities: of the columns.
        rows: corruption, modality, and by severity (value, chance).
    """

    metric: str
    clean: float
    chance: float | None
    severities: list[int]
    rows: list[tuple[str, str, list[tuple[float | None, float | None]]]]


class GroupTable(NamedTuple):
    """One metric: one row per group.

    Attributes:
        metric: name of the metric.
        rows: (group, number of rows, value, chance).
        mean: unweighted mean of the values of all groups.
        worst: the group with the lowest value; None for an error metric, whose lowest value is the best.
    """

    metric: str
    rows: list[tuple[str, int, float, float | None]]
    mean: float
    worst: str | None


def corruption_tables(
    results: Sequence[Mapping[str, Any]], test: Mapping[str, Mapping[str, Any]]
) -> list[CorruptionTable]:
    """A table for each metric.

    Args:
        results: as in summary.json under `corruptions`.
        test: metrics on the clean split.
    """
    severities = sorted({row["severity"] for row in results})
    tables = []
    for metric in dict.fromkeys(row["metric"] for row in results):
        mine = [row for row in results if row["metric"] == metric]
        cells = {(r["corruption"], r["modality"], r["severity"]): (r["value"], r["chance"]) for r in mine}
        done = dict.fromkeys((row["corruption"], row["modality"]) for row in mine)
        tables.append(
            CorruptionTable(
                metric=metric,
                clean=mine[0]["clean"],
                chance=test.get(metric, {}).get("chance"),
                severities=severities,
                rows=[(name, m, [cells.get((name, m, s), (None, None)) for s in severities]) for name, m in done],
            )
        )
    return tables


def group_tables(groups: Sequence[Mapping[str, Any]]) -> list[GroupTable]:
    """A table for each metric; `groups` as in summary.json."""
    tables = []
    for metric in dict.fromkeys(row["metric"] for row in groups):
        mine = [row for row in groups if row["metric"] == metric]
        worst = min(mine, key=lambda row: row["value"])["group"]
        tables.append(
            GroupTable(
                metric=metric,
                rows=[(row["group"], row["rows"], row["value"], row["chance"]) for row in mine],
                mean=sum(row["value"] for row in mine) / len(mine),
                worst=None if metric.endswith(("error", "loss")) else worst,
            )
        )
    return tables
