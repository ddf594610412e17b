"""Chance levels: some metrics return NAME/chance, the score of random guessing, next to NAME."""

from collections.abc import Mapping

from torch import Tensor

CHANCE_METRICS = "/chance"


def chance_scores(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the chance levels among computed values, by the name of the metric."""
    return {name.removesuffix(CHANCE_METRICS): float(v) for name, v in values.items() if name.endswith(CHANCE_METRICS)}
