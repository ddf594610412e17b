"""A look at a step to come, for a balance that wants to know the losses or their gradients before it weighs them.

Nothing is computed unless it is asked for. What needs the networks runs them with the draws of the step itself,
micro-batch by micro-batch, and shows the statistics of batch norms nothing new; a step of one micro-batch keeps that
run and is not run again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.distributed import total
from mmtrain.layers.finetuning import without_statistics
from mmtrain.model import MultimodalModel
from mmtrain.types import View

WHERE = ("parameters", "features")
COLUMNS = 2**20  # that are turned to float64 at once


class Run(NamedTuple):
    """A micro-batch that went through the networks: each task's share of its mean, (K,) scalars with a graph."""

    losses: list[Tensor]
    view: View


class StepLook:
    """Losses and inner products of gradients of a step, over all its micro-batches and ranks.

    Args:
        names: of the tasks.
        scales: what each task's loss is multiplied by.
        seed: of every draw for this step that all ranks share.
        number: of micro-batches on this rank.
        run: runs one, with its own draws.
        model: whose parameters are shared, and whose batch norms are spared.
        loss_scale: by how much gradients are scaled up so that 16 bits hold them.
        keeps: whether a run of the only micro-batch may be the step's own.
        prepare: done once before the first run, when there is one.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        scales: Sequence[float],
        seed: int,
        number: int,
        run: Callable[[int], Run],
        model: MultimodalModel,
        loss_scale: float,
        keeps: bool,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.names = names
        self.seed = seed
        self._scales = scales
        self._number = number
        self._prepare: Callable[[], None] | None = prepare
        self._again = prepare
        self._runs_one = run
        self._model = model
        self._loss_scale = loss_scale
        self._keeps = keeps
        self._kept: Run | None = None

    def again(self) -> "StepLook":
        """The same look once more, when the weights have changed."""
        return StepLook(
            names=self.names,
            scales=self._scales,
            seed=self.seed,
            number=self._number,
            run=self._runs_one,
            model=self._model,
            loss_scale=self._loss_scale,
            keeps=False,
            prepare=self._again,
        )

    def take(self, number: int) -> Run:
        """A micro-batch for the step itself: as it was looked at, or run now."""
        kept, self._kept = self._kept, None
        return self._run(number) if kept is None else kept

    def _run(self, number: int) -> Run:
        prepare, self._prepare = self._prepare, None
        if prepare is not None:
            prepare()
        return self._runs_one(number)

    def losses(self) -> Tensor:
        """(K,), float64: each task's mean loss times its own weight."""
        sums = torch.stack([torch.stack([x.detach().double() for x in r.losses]) for r in self._runs(graph=False)])
        return self._scaled(total(sums.sum(dim=0)))

    def _scaled(self, losses: Tensor) -> Tensor:
        return losses * torch.tensor(self._scales, dtype=torch.double, device=losses.device)

    def gramian(self, on: str) -> Tensor:
        """(K, K), float64: inner products of the gradients of those losses.

        Args:
            on: parameters: of encoders and fusion; features: what the encoders give.

        Raises:
            ValueError: for anything else.
        """
        if on not in WHERE:
            raise ValueError(f"on = {on}; set it to {' or '.join(WHERE)}")
        found = None
        for run in self._runs(graph=True):
            rows = self._gradients(run, on)
            # parameters are the same for all micro-batches and ranks, features are of some rows each
            part = rows if on == "parameters" else _products(rows)
            found = part if found is None else found + part
        assert found is not None
        found = total(found)
        gramian = _products(found) if on == "parameters" else found
        scales = self._scaled(torch.ones(len(self.names), dtype=torch.double, device=gramian.device))
        return gramian * scales.unsqueeze(1) * scales

    def _gradients(self, run: Run, on: str) -> Tensor:
        """(K, P): the gradient of each loss, zeros where it does not reach."""
        parts = [self._model.encoders, *([] if self._model.fusion is None else [self._model.fusion])]
        shared: list[Tensor] = [p for part in parts for p in part.parameters() if p.requires_grad]
        if on == "features":
            tokens = [run.view.encoded(m).tokens for m in self._model.encoders]
            shared = [t for t in tokens if t.requires_grad]
        rows = []
        for loss in run.losses:
            row = [torch.zeros_like(t) for t in shared]
            if loss.requires_grad and shared:
                found = torch.autograd.grad(loss * self._loss_scale, shared, retain_graph=True, allow_unused=True)
                row = [z if g is None else g for z, g in zip(row, found, strict=True)]
            rows.append(torch.cat([g.flatten() / self._loss_scale for g in row] or [loss.new_zeros(1)]))
        return torch.stack(rows)

    def _runs(self, *, graph: bool) -> Iterator[Run]:
        """The micro-batches one after the other, so that one graph is alive at a time."""
        if self._keeps and self._number == 1:
            self._kept = self._kept or self._run(0)
            yield self._kept
            return
        norms = [m for m in self._model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        for number in range(self._number):
            with without_statistics(norms), torch.set_grad_enabled(graph):
                run = self._run(number)
            yield run


def _products(rows: Tensor) -> Tensor:
    """Inner products of rows, (K, P) -> (K, K), in float64, a share of the columns at a time.

    In float32 the cosines of nearly parallel gradients would be rounding, and squares of short gradients would be 0.
    """
    return torch.stack([part @ part.T for part in map(Tensor.double, rows.split(COLUMNS, dim=1))]).sum(dim=0)
