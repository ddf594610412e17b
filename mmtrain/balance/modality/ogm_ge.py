"""On-the-fly gradient modulation with generalization enhancement (OGM-GE, 2203.15332).

    s_m = sum over the batch of p(truth | modality m alone)                                    (eq. 8)
    r_m = s_m / s_other,   k_m = 1 - tanh(alpha r_m) where r_m > 1, else 1                      (eq. 9 and 10)
    gradient of encoder m = k_m gradient + noise of the variance of the gradient                (eq. 11 and 12)

The paper reads p(truth | m) from a linear classifier over two concatenated vectors. Here it is the model's own
prediction with all other modalities masked, so any fusion works. With more than two modalities, s_other is the mean of
the others. s is a mean over the rows that have the modality, because not all rows have both. The noise is drawn per
tensor with the standard deviation of its gradient, as in the authors' code, for weights of two or more dimensions. An
optimizer that divides by the gradient's magnitude, such as Adam, responds to changes of k, not to its level; the paper
uses SGD.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.annotations import NonNegativeFloat
from mmtrain.balance.modality.balance import unimodal_tasks
from mmtrain.distributed import all_reduce_sum
from mmtrain.types import View


class OGMGE(nn.Module):
    """Slows down the encoder of the dominant modality.

    Args:
        tasks: by name; those that predict from fused features determine which modality dominates.
        dims: feature width per modality.
        alpha: strength of the modulation.
        noise: whether to add noise with the variance of the gradient.

    Raises:
        ValueError: if no task predicts from fused features, or if there is only one modality.
    """

    def __init__(
        self, *, tasks: Mapping[str, Any], dims: Mapping[str, int], alpha: NonNegativeFloat, noise: bool
    ) -> None:
        super().__init__()
        self.modalities = sorted(dims)
        self.judges = unimodal_tasks(tasks, self.modalities)
        self.alpha = alpha
        self.noise = noise
        self.factors = dict.fromkeys(self.modalities, 1.0)
        self._seen: Tensor | None = None

    def losses(self, view: View, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums unchanged, and accumulate the confidence of each modality alone."""
        with torch.no_grad():
            seen = torch.stack([self._confidence(view.only([m])) for m in self.modalities])
        self._seen = seen if self._seen is None else self._seen + seen
        return dict(sums)

    def _confidence(self, view: View) -> Tensor:
        """Return (sum, count) of the probability of the truth, over all tasks that predict from fused features."""
        pairs = [task.confidence(view.predictions(name), view.batch) for name, task in self.judges.items()]
        return torch.stack([torch.stack([s.double(), c.double()]) for s, c in pairs]).sum(dim=0)

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Scale each encoder's gradients by its factor and add noise."""
        assert self._seen is not None
        sums, counts = all_reduce_sum(self._seen).T
        self._seen = None
        scores = (sums / counts.clamp(min=1.0)).tolist()
        self.factors = dict(zip(self.modalities, modulation(scores, self.alpha), strict=True))
        for place, m in enumerate(self.modalities):
            for number, p in enumerate(encoders[m].parameters()):
                if p.grad is not None:
                    self._change(p.grad, self.factors[m], seed + 1000003 * place + number)

    def _change(self, gradient: Tensor, factor: float, seed: int) -> None:
        noise = None
        if self.noise and gradient.ndim >= 2:
            # drawn on the CPU: equal on every rank and device
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(gradient.shape, generator=generator, dtype=torch.float32)
            noise = drawn.to(gradient) * gradient.std()
        gradient.mul_(factor)
        if noise is not None:
            gradient.add_(noise)

    def validate(self, view: View) -> None:
        """Do nothing: validation is not used."""

    def end_validation(self) -> None:
        """Do nothing: validation is not used."""

    def values(self) -> dict[str, float]:
        """Return the factor of each modality in the last step."""
        return {f"modality_balance/{m}": factor for m, factor in self.factors.items()}

    def extra_state(self) -> dict[str, Any]:
        """Return {}: there is no state beyond a step."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def modulation(scores: list[float], alpha: float) -> list[float]:
    """Return the factor of each modality's gradients, from its confidence in the truth (eq. 9 and 10).

    >>> [round(k, 3) for k in modulation([0.6, 0.3], 0.5)]
    [0.238, 1.0]
    """
    factors = []
    for place, score in enumerate(scores):
        others = [s for other, s in enumerate(scores) if other != place]
        mean = sum(others) / len(others)
        ratio = torch.tensor(score / mean if mean > 0 else 1.0)
        factors.append(float(1 - torch.tanh(alpha * ratio)) if ratio > 1 else 1.0)
    return factors
