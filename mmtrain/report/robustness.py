"""How a run fares on a spoiled test split and on each group of it, made ready for the page and the card."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class CorruptionTable(NamedTuple):
    """One metric: a row a corruption, a column a severity; None where there was nothing to judge.

    Attributes:
        metric: its name.
        clean: its value on the split as it is.
        chance: what guessing scores there; None where that is not known.
        severities: of the columns.
        rows: the corruption, the modality, and by severity (value, chance).
    """

    metric: str
    clean: float
    chance: float | None
    severities: list[int]
    rows: list[tuple[str, str, list[tuple[float | None, float | None]]]]


class GroupTable(NamedTuple):
    """One metric: a row a group.

    Attributes:
        metric: its name.
        rows: (group, how many rows, value, chance).
        mean: of the groups' values, each counting the same.
        worst: the group with the lowest value; None for an error, of which the lowest is the best.
    """

    metric: str
    rows: list[tuple[str, int, float, float | None]]
    mean: float
    worst: str | None


def corruption_tables(
    judged: Sequence[Mapping[str, Any]], test: Mapping[str, Mapping[str, Any]]
) -> list[CorruptionTable]:
    """A table for each metric.

    Args:
        judged: as summary.json has them under `corruptions`.
        test: the clean figures, by metric.
    """
    severities = sorted({row["severity"] for row in judged})
    tables = []
    for metric in dict.fromkeys(row["metric"] for row in judged):
        mine = [row for row in judged if row["metric"] == metric]
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
    """A table for each metric; `groups` as summary.json has them."""
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
