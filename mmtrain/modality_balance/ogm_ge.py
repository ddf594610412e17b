"""On-the-fly gradient modulation with generalization enhancement (OGM-GE, 2203.15332).

    s_m = sum over the batch of p(truth | modality m alone)                                    (eq. 8)
    r_m = s_m / s_other,   k_m = 1 - tanh(alpha r_m) where r_m > 1, else 1                      (eq. 9 and 10)
    gradient of encoder m = k_m gradient + noise of the variance of the gradient                (eq. 11 and 12)

The paper reads p(truth | m) from a linear classifier over two concatenated vectors. Here the model itself is asked,
with the other modalities masked away, so that any fusion will do; of more than two, s_other is the mean of the others;
and s is a mean over the rows that have the modality, because not all have both. The noise is drawn for each tensor with
the standard deviation of its gradient, as in the authors' code, on weights of two or more dimensions. An optimizer that
divides by the gradient's own size, such as Adam, answers to changes of k and not to its level; the paper uses SGD.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.distributed import total
from mmtrain.modality_balance.modality_balance import judging


class OGMGE(nn.Module):
    """The modality that is ahead learns more slowly.

    Args:
        tasks: by name; those that judge fused features say which modality is ahead.
        dims: width by modality.
        alpha: how strongly the one that is ahead is held back.
        noise: whether noise of the gradient's own variance is added.

    Raises:
        ValueError: when no task judges, or there is one modality alone.
    """

    def __init__(self, *, tasks: Mapping[str, Any], dims: Mapping[str, int], alpha: float, noise: bool) -> None:
        super().__init__()
        self.modalities = sorted(dims)
        self.judges = judging(tasks, self.modalities)
        self.alpha = alpha
        self.noise = noise
        self.factors = dict.fromkeys(self.modalities, 1.0)
        self._seen: Tensor | None = None

    def losses(self, view: Any, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums as they are; what each modality alone would say is kept."""
        with torch.no_grad():
            seen = torch.stack([self._confidence(view.only([m])) for m in self.modalities])
        self._seen = seen if self._seen is None else self._seen + seen
        return dict(sums)

    def _confidence(self, view: Any) -> Tensor:
        """(sum, count) of the probability of the truth, over all tasks that judge."""
        pairs = [task.confidence(view.predictions(name), view.batch) for name, task in self.judges.items()]
        return torch.stack([torch.stack([s.double(), c.double()]) for s, c in pairs]).sum(dim=0)

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Scale each encoder's gradients by its factor and add noise."""
        assert self._seen is not None
        sums, counts = total(self._seen).T
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
            # drawn on the CPU: the same on every rank and device
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(gradient.shape, generator=generator, dtype=torch.float32)
            noise = drawn.to(gradient) * gradient.std()
        gradient.mul_(factor)
        if noise is not None:
            gradient.add_(noise)

    def validate(self, view: Any) -> None:
        """Nothing to learn from validation."""

    def end_validation(self) -> None:
        """Nothing to learn from validation."""

    def values(self) -> dict[str, float]:
        """The factor of each modality in the last step."""
        return {f"modality_balance/{m}": factor for m, factor in self.factors.items()}

    def state(self) -> dict[str, Any]:
        """Nothing lasts beyond a step."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to take."""


def modulation(scores: list[float], alpha: float) -> list[float]:
    """The factor of each modality's gradients, by how sure each alone is of the truth (eq. 9 and 10).

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
