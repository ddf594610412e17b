"""Values that a task logs per training step in addition to the loss: sums and counts by name."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class RunningMeans:
    """Accumulates numbers of one step on this rank until they are taken.

    Args:
        names: names of the numbers; `take` always returns all of them.
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
        """Return (sum, count) by name since the last call, float64 on `device`."""
        taken = {}
        for name in self.names:
            values = torch.cat([torch.zeros(0, dtype=torch.double, device=device), *self._values.get(name, [])])
            taken[name] = values.sum(), torch.tensor(float(len(values)), dtype=torch.double, device=device)
        self._values = {}
        return taken
