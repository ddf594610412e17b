"""What guessing scores, which some metrics compute beside what they score themselves: NAME/chance beside NAME."""

from collections.abc import Mapping

from torch import Tensor

GUESSED = "/chance"


def guessed(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The chance levels among computed values, by the name of what they stand beside."""
    return {name.removesuffix(GUESSED): float(v) for name, v in values.items() if name.endswith(GUESSED)}
