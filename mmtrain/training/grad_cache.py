"""A contrastive loss over all rows of a step, computed one micro-batch at a time (GradCache, 2101.06983, section 3.2).

1. Every micro-batch goes through the networks without a graph. Only the vectors that the task compares are kept.
2. The loss over the vectors of all micro-batches and ranks gives the gradient of each vector.
3. Every micro-batch goes through the networks again, with the same random draws and with a graph. The backward pass
   starts from the gradients of its vectors.

The result is the gradient of one large batch, dropout included, in the memory of one micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmtrain.tasks.task import SupportsGradCache, Task
from mmtrain.training.global_batch import GlobalBatch, MicroBatch, concatenate_batches
from mmtrain.types import Batch, View


class GradientCache:
    """The gradients of the vectors of one step.

    Args:
        tasks: that compare rows, by name.
        window: the micro-batches of this rank.
    """

    def __init__(self, tasks: Mapping[str, SupportsGradCache], window: Sequence[Batch]) -> None:
        self.tasks = tasks
        self._num = len(window)
        step = window[0].step
        self._global_batch: GlobalBatch | None = step.global_batch if isinstance(step, MicroBatch) else None
        self._rows = concatenate_batches(window)
        self._sums: dict[str, Tensor] = {}
        self._of_vectors: dict[str, list[dict[str, Tensor]]] = {}
        self._of_parameters: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def fill(self, view: Callable[[int], View]) -> None:
        """Run every micro-batch and compute the gradients. All ranks call it at the same time.

        Args:
            view: returns the view of a micro-batch, with its random draws; called without a graph.
        """
        paired = self._global_batch.tasks if self._global_batch is not None else ()
        vectors: dict[str, list[dict[str, Tensor]]] = {name: [] for name in dict.fromkeys([*self.tasks, *paired])}
        for number in range(self._num):
            with torch.no_grad():
                seen = view(number)
                for name, parts in vectors.items():
                    parts.append(dict(seen.predictions(name)))
        for name in paired:
            assert self._global_batch is not None
            self._global_batch.fill(name, vectors[name])
        for name, task in self.tasks.items():
            self._compare(name, task, vectors[name])

    def _compare(self, name: str, task: SupportsGradCache, parts: Sequence[Mapping[str, Tensor]]) -> None:
        with torch.enable_grad():
            leaves = [{m: v.detach().requires_grad_() for m, v in part.items()} for part in parts]
            vectors = {m: torch.cat([leaf[m] for leaf in leaves]) for m in leaves[0]}
            total, _ = task.loss(vectors, self._rows)
            own = [p for p in task.loss_parameters() if p.requires_grad]
            inputs = [*(v for leaf in leaves for v in leaf.values()), *own]
            gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        given = iter(gradients)
        self._sums[name] = total.detach()
        self._of_vectors[name] = [{m: next(given) for m in leaf} for leaf in leaves]
        self._of_parameters[name] = list(zip(own, given, strict=True))

    def loss(self, name: str, number: int, predictions: Mapping[str, Tensor]) -> Tensor:
        """Return a scalar in place of a micro-batch's part of a task's loss.

        Summed over the micro-batches, its values are the loss of the step, and so are its gradients.
        """
        # a vector without a gradient may have any value, NaN included
        pulls = [
            (torch.where(g != 0, predictions[m], 0.0) * g).sum() for m, g in self._of_vectors[name][number].items()
        ]
        pulls += [(p * g).sum() / self._num for p, g in self._of_parameters[name]]
        pull = torch.stack(pulls).sum()
        return pull - pull.detach() + self._sums[name] / self._num

    def losses(self, tasks: Mapping[str, Task], view: View, number: int) -> dict[str, Tensor]:
        """Return each task's loss sum for a micro-batch, or the scalar in its place, in the order of the tasks."""
        # cached tasks come first, so that they get the same random draws as in `fill`
        sums = {name: self.loss(name, number, view.predictions(name)) for name in self.tasks}
        return {n: sums[n] if n in sums else t.loss(view.predictions(n), view.batch)[0] for n, t in tasks.items()}


def cache_of(tasks: Mapping[str, Task], window: Sequence[Batch], *, wanted: bool) -> GradientCache:
    """Return the cache of the tasks that compare rows; of no task if there is one micro-batch, or it is not wanted."""
    needed = wanted and len(window) > 1
    return GradientCache({n: t for n, t in tasks.items() if needed and isinstance(t, SupportsGradCache)}, window)
