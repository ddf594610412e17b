"""Gradient blending (G-Blend, 1905.12681): a head per modality in addition to the fused one, with weighted losses.

    L = sum over k of w_k L_k,   k = all modalities together, and each modality alone
    w_k = G_k / O_k^2, scaled to sum 1                                                          (prop. 1)
    G_k = decrease of the validation loss,   O_k = increase of (validation loss - training loss)

over the epochs since the last update of the weights. A loss that generalizes gets a large weight, one that overfits a
small weight. The paper estimates G and O by training each k separately from the current weights. Here they are measured
during the run, at no cost. A loss that did not decrease on validation has weight 0 until the next update. If none
decreased, the weights do not change. The training loss is the mean over those epochs, measured during training. Weights
start equal.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.annotations import PositiveInt
from mmtrain.balance.modality.balance import unimodal_tasks
from mmtrain.distributed import all_reduce_sum
from mmtrain.types import View

ALL = "all"
EPS = 1e-8


class GradientBlend(nn.Module):
    """Heads per modality, and the weights of their losses.

    Args:
        tasks: by name; those that predict from fused features get one head per modality.
        dims: feature width per modality.
        update_every: number of validations between updates of the weights.

    Raises:
        ValueError: if no task predicts from fused features, or if there is only one modality.
    """

    def __init__(self, *, tasks: Mapping[str, Any], dims: Mapping[str, int], update_every: PositiveInt) -> None:
        super().__init__()
        if update_every < 1:
            raise ValueError(f"update_every = {update_every}; set it to 1 or more")
        self.modalities = sorted(dims)
        self.judges = unimodal_tasks(tasks, self.modalities)
        self.update_every = update_every
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleDict({m: task.new_head(dims[m]) for m in self.modalities})
                for name, task in self.judges.items()
            }
        )
        size = 1 + len(self.modalities)
        # plain numbers, not buffers: weight averaging (callbacks=[ema]) must not change them
        self.weights = {name: [1.0 / size] * size for name in self.judges}
        self._before: dict[str, list[list[float]]] = {}
        self._nothing = torch.zeros(size, 2, dtype=torch.double)
        # (sum, count) of each loss: _step and _val on this rank; _train on all ranks, since the last update
        self._step = dict.fromkeys(self.judges, self._nothing)
        self._val = dict.fromkeys(self.judges, self._nothing)
        self._train = dict.fromkeys(self.judges, self._nothing)
        self._looks = 0

    def losses(self, view: View, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Replace the loss sum of each task that has heads by the blend of its own and those of the heads."""
        blended = dict(sums)
        for name, weights in self.weights.items():
            parts = self._parts(name, view, sums[name])
            self._step[name] = _added(self._step[name], parts)
            blended[name] = torch.stack([w * s for w, (s, _) in zip(weights, parts, strict=True)]).sum()
        return blended

    def _parts(self, name: str, view: View, fused: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (sum, count) of the fused loss and of each modality's loss."""
        task = self.judges[name]
        heads = self.heads[name]
        assert isinstance(heads, nn.ModuleDict)
        alone = [task.loss(heads[m](view.encoded(m)), view.batch.only([m])) for m in self.modalities]
        return [(fused, view.model.tasks[name].count(view.batch)), *alone]

    def modulate(self, encoders: nn.ModuleDict, *, seed: int) -> None:
        """Accumulate the losses of the step. Gradients do not change, because they are already those of the blend."""
        for name, seen in self._step.items():
            self._train[name] = self._train[name].to(seen.device) + all_reduce_sum(seen)
            self._step[name] = self._nothing

    def validate(self, view: View) -> None:
        """Accumulate the losses of all heads on a batch."""
        for name, task in self.judges.items():
            fused, _ = task.loss(view.predictions(name), view.batch)
            self._val[name] = _added(self._val[name], self._parts(name, view, fused))

    def end_validation(self) -> None:
        """Update the weights at every `every`-th validation, from the losses since the last update."""
        self._looks += 1
        due = self._looks % self.update_every == 0
        for name in self.judges:
            train, val = _means(self._train[name]), _means(all_reduce_sum(self._val[name]))
            self._val[name] = self._nothing
            if not due or train is None or val is None:
                continue
            if name in self._before:
                self.weights[name] = blend(self._before[name], [train, val], self.weights[name])
            self._before[name] = [train, val]
            self._train[name] = self._nothing

    def values(self) -> dict[str, float]:
        """Return the weight of each loss."""
        names = [ALL, *self.modalities]
        prefixes = {name: "" if len(self.weights) == 1 else f"{name}/" for name in self.weights}
        return {
            f"modality_balance/{prefixes[task]}{name}": weight
            for task, weights in self.weights.items()
            for name, weight in zip(names, weights, strict=True)
        }

    def extra_state(self) -> dict[str, Any]:
        """Return the weights, the losses at the last update, and those accumulated since."""
        seen = {name: seen.tolist() for name, seen in self._train.items()}
        return {"weights": self.weights, "before": self._before, "seen": seen, "looks": self._looks}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `extra_state`."""
        self.weights, self._before, self._looks = state["weights"], state["before"], state["looks"]
        self._train = {name: torch.tensor(seen, dtype=torch.double) for name, seen in state["seen"].items()}


def _added(seen: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    now = torch.stack([torch.stack([s.detach().double(), c.double()]) for s, c in parts])
    return seen.to(now.device) + now


def _means(seen: Tensor) -> list[float] | None:
    """Return the means of (sum, count); None if a count is 0."""
    sums, counts = seen.T
    return None if (counts == 0).any() else (sums / counts).tolist()


def blend(before: list[list[float]], now: list[list[float]], weights: list[float]) -> list[float]:
    """Return the weights of the losses (prop. 1 of 1905.12681).

    Args:
        before: training losses and validation losses, K each, at the last update.
        now: the same, now.
        weights: current weights, returned if no validation loss decreased.

    >>> before, now = [[1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [0.75, 0.9]]
    >>> [round(w, 3) for w in blend(before, now, [0.5, 0.5])]
    [0.865, 0.135]
    """
    results = []
    for train0, val0, train1, val1 in zip(*before, *now, strict=True):
        generalised = max(val0 - val1, 0.0)
        overfitted = (val1 - train1) - (val0 - train0)
        results.append(generalised / max(overfitted**2, EPS))
    total = sum(results)
    return [w / total for w in results] if total > 0 else weights
