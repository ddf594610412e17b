"""One optimizer step: its micro-batches, their forward passes, and the losses and gradients of its tasks.

The training loop, the balances and `mode=plan` share one `TrainingStep`. A balance may ask for the losses or the
gradients before the step is taken (`TaskGradients`). This runs the networks with the random draws of the step itself,
micro-batch by micro-batch, and without changes to batch norm statistics. Nothing runs that is not needed. A step of
one micro-batch keeps the run that a balance requested, and does not run it again.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.balance.modality.balance import ModalityBalance
from mmtrain.data.order import mix
from mmtrain.distributed import all_reduce_sum, rank
from mmtrain.layers.finetuning import batchnorm_frozen, frozen
from mmtrain.model import MultimodalModel
from mmtrain.training.global_batch import attach_global_batch
from mmtrain.training.grad_cache import cache_of
from mmtrain.training.task_gradients import WHERE, inner_products, jacobian
from mmtrain.types import Batch, View

_SHARED = 0x06E  # marks draws that are the same on every rank


class ForwardPass(NamedTuple):
    """A micro-batch after its forward pass.

    Attributes:
        losses: of each task, this micro-batch's part of the mean over the complete step: (K,) scalars with a graph.
        view: features and predictions of the micro-batch.
    """

    losses: list[Tensor]
    view: View


class TrainingStep:
    """The micro-batches of one optimizer step on this rank. It is a `mmtrain.balance.balance.TaskGradients`.

    Creating one is a collective operation: every rank does it at the same time.

    Args:
        model: the network.
        window: the micro-batches of this rank.
        number: of the step, from 0.
        seed: of the run.
        gradient_cache: whether tasks that compare rows compare all rows of the step; see `mmtrain.training.grad_cache`.
        modality_balance: may change the losses of a micro-batch; None changes nothing.
        frozen: encoders that are not trained in this step.
        loss_scale: factor of the gradients with which 16-bit training avoids underflow.

    Attributes:
        names: of the tasks.
        window: the micro-batches. They know the other rows of the step if a task pairs rows.
        counts: by task, the items that it learns from in this step, over all micro-batches and ranks.
        seed: of random draws in this step that are the same on every rank.
    """

    def __init__(
        self,
        model: MultimodalModel,
        window: Sequence[Batch],
        *,
        number: int,
        seed: int,
        gradient_cache: bool = False,
        modality_balance: ModalityBalance | None = None,
        frozen: Sequence[nn.Module] = (),
        loss_scale: float = 1.0,
    ) -> None:
        self.model = model
        self.tasks = model.named_tasks()
        self.names: Sequence[str] = list(self.tasks)
        self.window = attach_global_batch(window, self.tasks)
        counts = torch.stack([torch.stack([t.count(b) for b in self.window]).sum() for t in self.tasks.values()])
        self.counts = dict(zip(self.tasks, all_reduce_sum(counts.float()), strict=True))
        self.seed = mix(seed, number, _SHARED) >> 1
        self._number = number
        self._run_seed = seed
        self._modality_balance = modality_balance
        self._frozen = list(frozen)
        self._loss_scale = loss_scale
        self._cache = cache_of(self.tasks, self.window, wanted=gradient_cache)
        self._cache_is_filled = False
        self._may_keep = len(self.window) == 1
        self._kept: ForwardPass | None = None

    def __len__(self) -> int:
        """The number of micro-batches."""
        return len(self.window)

    def after_update(self) -> "TrainingStep":
        """Return the same step for the model as it is now, with updated weights."""
        updated = copy.copy(self)
        updated._cache_is_filled = updated._may_keep = False
        updated._kept = None
        return updated

    def forward(self, number: int) -> ForwardPass:
        """Run the networks on a micro-batch, with a graph, unless `losses` or `gramian` kept that run."""
        kept, self._kept = self._kept, None
        return self._run(number) if kept is None else kept

    def losses(self) -> Tensor:
        """Return (K,), float64: each task's mean loss over the complete step, times the task's own weight."""
        sums = torch.stack([torch.stack([x.detach().double() for x in r.losses]) for r in self._runs(graph=False)])
        return self.weighted(all_reduce_sum(sums.sum(dim=0)))

    def weighted(self, losses: Tensor) -> Tensor:
        """Return (K,), float64: losses times the tasks' own weights."""
        weights = [task.weight for task in self.tasks.values()]
        return losses.double() * torch.tensor(weights, dtype=torch.double, device=losses.device)

    def gramian(self, on: str) -> Tensor:
        """Return (K, K), float64: inner products of the gradients of those losses.

        Args:
            on: "parameters" of encoders and fusion, or "features", the outputs of the encoders.

        Raises:
            ValueError: for anything else.
        """
        if on not in WHERE:
            raise ValueError(f"on = {on}; set it to {' or '.join(WHERE)}")
        summed = None
        for run in self._runs(graph=True):
            rows = jacobian(run.losses, self._shared(run.view, on), loss_scale=self._loss_scale)
            # all micro-batches and ranks have the same parameters, but each has the features of its own rows
            part = rows if on == "parameters" else inner_products(rows)
            summed = part if summed is None else summed + part
        assert summed is not None
        summed = all_reduce_sum(summed)
        gramian = inner_products(summed) if on == "parameters" else summed
        weights = self.weighted(torch.ones(len(self.names), dtype=torch.double, device=gramian.device))
        return gramian * weights.unsqueeze(1) * weights

    def _shared(self, view: View, on: str) -> list[Tensor]:
        """The tensors that all tasks share and that the losses are differentiated by."""
        if on == "features":
            tokens = [view.encoded(m).tokens for m in self.model.encoders]
            return [t for t in tokens if t.requires_grad]
        parts = [self.model.encoders, *([] if self.model.fusion is None else [self.model.fusion])]
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def _runs(self, *, graph: bool) -> Iterator[ForwardPass]:
        """The micro-batches one after the other, so that only one graph is in memory at a time."""
        if self._may_keep:
            self._kept = self._kept or self._run(0)
            yield self._kept
            return
        for number in range(len(self.window)):
            with batchnorm_frozen(self._batch_norms()), torch.set_grad_enabled(graph):
                run = self._run(number)
            yield run

    def _run(self, number: int) -> ForwardPass:
        if not self._cache_is_filled:
            self._cache_is_filled = True
            with frozen(self._frozen), batchnorm_frozen(self._batch_norms()):
                self._cache.fill(self._view)
        with frozen(self._frozen):
            view = self._view(number)
            sums = self._cache.losses(self.tasks, view, number)
            if self._modality_balance is not None:
                sums = self._modality_balance.losses(view, sums)
            return ForwardPass([sums[n] / self.counts[n].clamp(min=1) for n in self.tasks], view)

    def _view(self, number: int) -> View:
        """A view of a micro-batch. Its random draws are a function of (seed, step, rank, number of the micro-batch)."""
        batch = self.window[number]
        seed = mix(self._run_seed, self._number, rank(), *([number] if number else [])) >> 1
        torch.default_generator.manual_seed(seed)
        if batch.rows.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return self.model.view(batch)

    def _batch_norms(self) -> list[_BatchNorm]:
        return [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
