"""One comparison of all rows of a step, also when its networks run on one micro-batch after another (2101.06983, 3.2).

First every micro-batch goes through the networks without a graph and leaves what the task compares, such as unit
vectors. The task's loss over all of them, on all ranks, gives each vector its gradient. Then the micro-batches go
through once more, with the same draws, and each brings its part of that gradient to the networks: the gradient is that
of the one large batch, dropout and all, in the memory of a micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmtrain.tasks.task import Compares, Task
from mmtrain.training.global_batch import StepPart, StepRows, together
from mmtrain.types import Batch, View


class GradientCache:
    """Of one step.

    Args:
        tasks: that compare rows, by name.
        window: the micro-batches of this rank.
    """

    def __init__(self, tasks: Mapping[str, Compares], window: Sequence[Batch]) -> None:
        self.tasks = tasks
        self._num = len(window)
        self._step: StepRows | None = window[0].step.rows if isinstance(window[0].step, StepPart) else None
        self._together = together(window)
        self._sums: dict[str, Tensor] = {}
        self._of_vectors: dict[str, list[dict[str, Tensor]]] = {}
        self._of_parameters: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def fill(self, view: Callable[[int], View]) -> None:
        """Run every micro-batch and take the gradients; all ranks do so at the same time.

        Args:
            view: of a micro-batch, with its draws; it is asked without a graph.
        """
        told = self._step.wanted if self._step is not None else ()
        found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in dict.fromkeys([*self.tasks, *told])}
        for number in range(self._num):
            with torch.no_grad():
                seen = view(number)
                for name, parts in found.items():
                    parts.append(dict(seen.predictions(name)))
        for name in told:
            assert self._step is not None
            self._step.fill(name, found[name])
        for name, task in self.tasks.items():
            self._compare(name, task, found[name])

    def _compare(self, name: str, task: Compares, parts: Sequence[Mapping[str, Tensor]]) -> None:
        with torch.enable_grad():
            leaves = [{m: v.detach().requires_grad_() for m, v in part.items()} for part in parts]
            whole = {m: torch.cat([leaf[m] for leaf in leaves]) for m in leaves[0]}
            total, _ = task.loss(whole, self._together)
            own = [p for p in task.compares_with() if p.requires_grad]
            wanted = [*(v for leaf in leaves for v in leaf.values()), *own]
            gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
        given = iter(gradients)
        self._sums[name] = total.detach()
        self._of_vectors[name] = [{m: next(given) for m in leaf} for leaf in leaves]
        self._of_parameters[name] = list(zip(own, given, strict=True))

    def loss(self, name: str, number: int, predictions: Mapping[str, Tensor]) -> Tensor:
        """What stands for a micro-batch's part of a task's loss.

        The values of all parts add up to the loss of the step, and so do their gradients.
        """
        # where no gradient is, the vector may be anything, NaN also
        pulls = [
            (torch.where(g != 0, predictions[m], 0.0) * g).sum() for m, g in self._of_vectors[name][number].items()
        ]
        pulls += [(p * g).sum() / self._num for p, g in self._of_parameters[name]]
        pull = torch.stack(pulls).sum()
        return pull - pull.detach() + self._sums[name] / self._num

    def losses(self, tasks: Mapping[str, Task], view: View, number: int) -> dict[str, Tensor]:
        """The sum of each task's loss for a micro-batch, or what stands for it, in the order of the tasks."""
        # what is cached comes first, so that it meets the draws that it met when it was filled
        sums = {name: self.loss(name, number, view.predictions(name)) for name in self.tasks}
        return {n: sums[n] if n in sums else t.loss(view.predictions(n), view.batch)[0] for n, t in tasks.items()}


def cache_of(tasks: Mapping[str, Task], window: Sequence[Batch], *, wanted: bool) -> GradientCache:
    """Of the tasks that compare rows; of none where there is one micro-batch, or it is not wanted."""
    needed = wanted and len(window) > 1
    return GradientCache({n: t for n, t in tasks.items() if needed and isinstance(t, Compares)}, window)
