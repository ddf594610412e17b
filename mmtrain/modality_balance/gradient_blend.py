"""Gradient blending (G-Blend, 1905.12681): a head for each modality beside the fused one, their losses weighed.

    L = sum over k of w_k L_k,   k = all together and each modality alone
    w_k = G_k / O_k^2, scaled to sum 1                                                          (prop. 1)
    G_k = fall of the validation loss,   O_k = growth of (validation loss - training loss)

over the epochs since the weights were set last: a loss that generalises counts, one that overfits does not. The paper
estimates G and O by training each k apart from the current weights; here they are those of the run itself, which costs
nothing. A loss that did not fall on validation has weight 0 until the next look; when none fell, the weights stay. The
training loss is the mean over those epochs, as it was seen. At first all weights are equal.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.distributed import total
from mmtrain.modality_balance.modality_balance import judging

ALL = "all"
EPS = 1e-8


class GradientBlend(nn.Module):
    """Heads for each modality, and the weights of their losses.

    Args:
        tasks: by name; those that judge fused features get a head for each modality.
        dims: width by modality.
        every: validations from one look at the weights to the next.

    Raises:
        ValueError: when no task judges, or there is one modality alone.
    """

    def __init__(self, *, tasks: Mapping[str, Any], dims: Mapping[str, int], every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every = {every}; set it to 1 or more")
        self.modalities = sorted(dims)
        self.judges = judging(tasks, self.modalities)
        self.every = every
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleDict({m: task.new_head(dims[m]) for m in self.modalities})
                for name, task in self.judges.items()
            }
        )
        size = 1 + len(self.modalities)
        # plain numbers and no buffers: an average of weights over steps (callbacks=[ema]) must not touch them
        self.weights = {name: [1.0 / size] * size for name in self.judges}
        self._before: dict[str, list[list[float]]] = {}
        self._nothing = torch.zeros(size, 2, dtype=torch.double)
        # (sum, count) of each loss: of this rank in this step and this validation; of all ranks since the last look
        self._step = dict.fromkeys(self.judges, self._nothing)
        self._val = dict.fromkeys(self.judges, self._nothing)
        self._train = dict.fromkeys(self.judges, self._nothing)
        self._looks = 0

    def losses(self, view: Any, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of a task that judges becomes the blend of its own and those of the heads."""
        blended = dict(sums)
        for name, weights in self.weights.items():
            parts = self._parts(name, view, sums[name])
            self._step[name] = _added(self._step[name], parts)
            blended[name] = torch.stack([w * s for w, (s, _) in zip(weights, parts, strict=True)]).sum()
        return blended

    def _parts(self, name: str, view: Any, fused: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(sum, count) of the fused loss and of each modality's."""
        task = self.judges[name]
        heads = self.heads[name]
        assert isinstance(heads, nn.ModuleDict)
        alone = [task.loss(heads[m](view.encoded(m)), view.batch.only([m])) for m in self.modalities]
        return [(fused, view.model.tasks[name].count(view.batch)), *alone]

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Gradients are those of the blend already; what the step saw is counted."""
        for name, seen in self._step.items():
            self._train[name] = self._train[name].to(seen.device) + total(seen)
            self._step[name] = self._nothing

    def validate(self, view: Any) -> None:
        """Judge a batch with every head."""
        for name, task in self.judges.items():
            fused, _ = task.loss(view.predictions(name), view.batch)
            self._val[name] = _added(self._val[name], self._parts(name, view, fused))

    def end_validation(self) -> None:
        """Set the weights, at every `every`-th time, from what was seen since the last."""
        self._looks += 1
        due = self._looks % self.every == 0
        for name in self.judges:
            train, val = _means(self._train[name]), _means(total(self._val[name]))
            self._val[name] = self._nothing
            if not due or train is None or val is None:
                continue
            if name in self._before:
                self.weights[name] = blend(self._before[name], [train, val], self.weights[name])
            self._before[name] = [train, val]
            self._train[name] = self._nothing

    def values(self) -> dict[str, float]:
        """The weight of each loss."""
        names = [ALL, *self.modalities]
        prefixes = {name: "" if len(self.weights) == 1 else f"{name}/" for name in self.weights}
        return {
            f"modality_balance/{prefixes[task]}{name}": weight
            for task, weights in self.weights.items()
            for name, weight in zip(names, weights, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """Weights, what they follow from, and what was seen since."""
        seen = {name: seen.tolist() for name, seen in self._train.items()}
        return {"weights": self.weights, "before": self._before, "seen": seen, "looks": self._looks}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self.weights, self._before, self._looks = state["weights"], state["before"], state["looks"]
        self._train = {name: torch.tensor(seen, dtype=torch.double) for name, seen in state["seen"].items()}


def _added(seen: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    now = torch.stack([torch.stack([s.detach().double(), c.double()]) for s, c in parts])
    return seen.to(now.device) + now


def _means(seen: Tensor) -> list[float] | None:
    """Means of (sum, count); None when one of them counts nothing."""
    sums, counts = seen.T
    return None if (counts == 0).any() else (sums / counts).tolist()


def blend(before: list[list[float]], now: list[list[float]], weights: list[float]) -> list[float]:
    """The weights of the losses (prop. 1 of 1905.12681).

    Args:
        before: training losses and validation losses, K each, when the weights were set last.
        now: likewise.
        weights: those that stay when no validation loss fell.

    >>> before, now = [[1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [0.75, 0.9]]
    >>> [round(w, 3) for w in blend(before, now, [0.5, 0.5])]
    [0.865, 0.135]
    """
    found = []
    for train0, val0, train1, val1 in zip(*before, *now, strict=True):
        generalised = max(val0 - val1, 0.0)
        overfitted = (val1 - train1) - (val0 - train0)
        found.append(generalised / max(overfitted**2, EPS))
    whole = sum(found)
    return [w / whole for w in found] if whole > 0 else weights
