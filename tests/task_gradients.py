"""A step whose losses and gradients are given, for the tests of balancing rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

NAMES = ("a", "b", "c")

# Rows are the gradients of three tasks.
JACOBIANS = {
    "alike": [[1.0, 2.0, 0.0, 1.0], [2.0, 1.0, 1.0, 0.0], [1.0, 1.0, 3.0, 1.0]],
    "conflicting": [[4.0, -1.0, 1.0, 0.0], [-6.0, 1.0, 1.0, 2.0], [1.0, 2.0, -3.0, 0.5]],
    "identical": [[1.0, -2.0, 0.5, 3.0]] * 3,
    "dependent": [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]],
    "opposite": [[1.0, -2.0, 0.5, 3.0], [-1.0, 2.0, -0.5, -3.0], [0.0, 1.0, 0.0, 0.0]],
    "small": [[4e-4, -1e-4, 1e-4, 0.0], [-6e-4, 1e-4, 1e-4, 2e-4], [1e-4, 2e-4, -3e-4, 5e-5]],
    "one missing": [[4.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-3.0, 2.0, -3.0, 0.5]],
    "all missing": [[0.0] * 4] * 3,
}


def jacobian(name: str) -> Tensor:
    """(3, 4), float64."""
    return torch.tensor(JACOBIANS[name], dtype=torch.double)


@dataclass
class FakeGradients:
    """A `mmtrain.balance.balance.TaskGradients` with given numbers."""

    values: Sequence[float] = (1.0, 2.0, 0.5)
    gradients: Tensor = field(default_factory=lambda: jacobian("conflicting"))
    seed: int = 7
    names: Sequence[str] = NAMES
    asked: list[str] = field(default_factory=list)

    def losses(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.double)

    def gramian(self, on: str) -> Tensor:
        self.asked.append(on)
        return self.gradients @ self.gradients.T
