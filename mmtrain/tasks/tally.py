"""What a task tells of its training steps beside the loss: sums and counts by name."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Tally:
    """Numbers of one step on this rank, added up until they are taken.

    Args:
        names: of the numbers; all of them are always told.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._values: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add numbers (N,) by name."""
        for name, value in values.items():
            assert name in self.names, name
            self._values.setdefault(name, []).append(value.detach().double())

    def take(self, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
        """(sum, count) by name of what came since the last time, float64 on that device."""
        taken = {}
        for name in self.names:
            values = torch.cat([torch.zeros(0, dtype=torch.double, device=device), *self._values.get(name, [])])
            taken[name] = values.sum(), torch.tensor(float(len(values)), dtype=torch.double, device=device)
        self._values = {}
        return taken
