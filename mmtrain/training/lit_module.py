"""The LightningModule: steps, logging, optimizer. No architecture.

Unusual here: optimization is manual. A training step gets all micro-batches of one optimizer step, counts the labelled
items of every task over all of them and all ranks before any network runs, and so takes each task's mean once: how
samples fall into micro-batches and ranks does not weigh them differently.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import DoublePrecision, MixedPrecision
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from mmtrain.balance.balance import Balance
from mmtrain.balance.fixed import Fixed
from mmtrain.balance.modality.balance import ModalityBalance
from mmtrain.distributed import gather_objects, total, world_size
from mmtrain.layers.finetuning import Tuning, rates_of
from mmtrain.model import MultimodalModel
from mmtrain.tasks.task import Remembers, Staged, Task, Tells
from mmtrain.training.attention_maps import attention_mass
from mmtrain.training.fsdp.shard import clip, exchange_whole, norm_of, shard, without_exchange
from mmtrain.training.nonfinite import Cause, Skipped, Statistics, explain
from mmtrain.training.optim.schedules import Following
from mmtrain.training.precision.bf16_true import HalfWeights, to_half
from mmtrain.training.step import TrainingStep
from mmtrain.types import Attended, Batch, Exhibit, View

# names of embeddings of positions and of kinds of tokens in transformers' models, and of distances
_PLACES = re.compile(r"(^|_)(pos|positions?|positional|relative|rel|distance|segment|type)(_|$)|^wpe$")


class LitModel(LightningModule):
    """Trains, validates, tests and predicts with a `MultimodalModel`.

    Args:
        model: the network.
        balance: a weight for each task, step by step; see `mmtrain.balance.balance`.
        optimizer: parameter groups -> optimizer.
        schedule: (step, total steps) -> factor of the learning rate.
        seed: every step's random state follows from it, the step and the rank.
        gradient_clip_val: largest norm of all gradients together; None leaves them.
        log_every_n_steps: training values are logged at every n-th step; twice in an epoch, or a run, of fewer steps.
        test_subsets: in test, also judge tasks on fused features with these modalities alone.
        tunings: how each encoder learns, by its dotted name below the model's encoders.
        modality_balance: what holds back the modality that is ahead; None for nothing.
        gradient_cache: whether tasks that compare rows compare all of a step, also of several micro-batches.
    """

    def __init__(
        self,
        *,
        model: MultimodalModel,
        balance: Balance,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[[int, int], float],
        seed: int,
        gradient_clip_val: float | None,
        log_every_n_steps: int,
        test_subsets: Sequence[tuple[str, ...]],
        tunings: Mapping[str, Tuning],
        modality_balance: ModalityBalance | None = None,
        gradient_cache: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.balance = balance
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.gradient_clip_val = gradient_clip_val
        self.log_every_n_steps = log_every_n_steps
        self._log_interval = log_every_n_steps
        self.test_subsets = test_subsets
        self.tunings = tunings
        self.modality_balance = modality_balance
        self.gradient_cache = gradient_cache
        self.tasks = model.named_tasks()
        self.metrics = nn.ModuleDict({name: task.metrics() for name, task in self.tasks.items()})
        self.subset_metrics = nn.ModuleDict(
            {_subset_key(name, s): self.tasks[name].metrics() for name, s in self._judged_subsets()}
        )
        # all modalities together, on the rows of a subset; not of tasks that are slow to judge
        self.same_row_metrics = nn.ModuleDict(
            {
                _subset_key(name, s): self.tasks[name].metrics()
                for name, s in self._judged_subsets()
                if judges_rows(self.tasks[name]) and not isinstance(self.tasks[name], Staged)
            }
        )
        self.table: dict[str, dict[str, float | None]] = {}
        self.not_judged: list[dict[str, Any]] = []  # rows of the last evaluation without any input, by task
        self.exhibits: list[Exhibit] = []
        self.look: Callable[[View], list[Attended]] = lambda view: []  # at what the report can draw of a batch
        self._looks: list[Attended] = []
        self._sums: dict[str, Tensor] = {}
        self._attention: dict[str, Tensor] = {}
        self._judged: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}
        self._epoch_sums, self._epoch_steps = torch.zeros(len(self.tasks), dtype=torch.double), 0
        self._samples, self._clock = 0, 0.0
        self._skipped_in_row = 0
        self.zero_steps = 0  # in which the balance gave every task a weight of 0, although there was something to learn
        self.tell_skipped: Callable[[Skipped], None] = lambda skipped: None
        self.name_row: Callable[[str, int], str] = lambda stage, row: str(row)
        self.retuned: Sequence[
            str
        ] = ()  # options of the optimizer that are not those of the checkpoint it goes on from
        self._asked: list[dict[str, Any]] = []  # of the optimizer, by group
        self.step_of_weights: int | None = None  # where the weights come from a checkpoint that is only looked at

    # ---------------------------------------------------------------- training

    def span(self, name: str) -> AbstractContextManager[object]:
        """Nothing, unless somebody wants to know how long this part of a step takes and puts a clock here."""
        return nullcontext()

    def training_step(self, window: list[Batch], batch_idx: int) -> None:
        """Take one optimizer step over the micro-batches of this rank."""
        frozen = self._frozen_now()
        step = TrainingStep(
            self.model,
            window,
            number=self.global_step,
            seed=self.seed,
            gradient_cache=self.gradient_cache,
            modality_balance=self.modality_balance,
            frozen=frozen,
            loss_scale=self._scale(),
        )
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, LRScheduler)
        optimizer.zero_grad()
        before = deepcopy([b.state() for b in self._balances()]), Statistics(self.model)
        weights = [w * t.weight for w, t in zip(self.balance.weights(step).tolist(), self.tasks.values(), strict=True)]
        means = self._backward(step, weights, waiting=[p for e in frozen for p in e.parameters() if p.requires_grad])
        if self.modality_balance is not None:
            self.modality_balance.modulate(self.model.encoders, seed=step.seed)
        norms = self._norms()
        norm = self._clip(optimizer)
        learning_rate = optimizer.param_groups[0]["lr"]  # of this step; the schedule goes on to that of the next
        skipped = self._skipped(step.window, means, weights, norm)
        if skipped is None:
            with self.span("optimizer"):
                optimizer.step()
            schedule.step()
            if not any(weights) and any(bool(count) for count in step.counts.values()):
                self._count_zero_step()
            self._end_step(step, means)
        else:
            self._drop_step(optimizer, *before)
            schedule.step()
            self.tell_skipped(skipped)
        self._samples += sum(len(batch) for batch in window) * world_size()
        told = {name: task.told() for name, task in self.tasks.items() if isinstance(task, Tells)}
        if (self.global_step - 1) % self._log_interval == 0 or skipped is not None:
            self._log_step(means, weights, norms | {"grad_norm": norm}, learning_rate, _means_of(told))

    def _backward(self, step: TrainingStep, weights: Sequence[float], *, waiting: Sequence[nn.Parameter]) -> Tensor:
        """Compute the gradients of the step, over all micro-batches and ranks, and return (K,): each task's mean loss.

        Args:
            step: to be taken.
            weights: of each task's loss.
            waiting: parameters of encoders that are frozen in this step, but not in later ones; they get no gradient.
        """
        means = torch.zeros(len(self.tasks), device=self.device)
        for number in range(len(step)):
            last = number == len(step) - 1
            with self._synchronized(last):
                losses = step.forward(number).losses
                means = means + torch.stack([x.detach() for x in losses])
                # counts are those of all ranks, so gradients are summed over the ranks; DDP takes their mean
                loss = _weighted(losses, weights) * world_size()
                if last:
                    means = total(means)
                    own = self.balance.own_loss(step.weighted(means))
                    loss = loss if own is None else loss + own
                # DDP waits for a gradient of every parameter that can have one
                waits = world_size() > 1 and not self._is_shared
                with self.span("backward"):
                    self.manual_backward(loss + sum((p * 0.0).sum() for p in waiting) if waits else loss)
        if self._is_shared:
            exchange_whole(self)
        for p in waiting:
            p.grad = None  # the optimizer then skips the parameter, with its moments and its weight decay
        return means

    def _end_step(self, step: TrainingStep, means: Tensor) -> None:
        """Update what is kept from step to step, after the optimizer step."""
        self._skipped_in_row = 0
        self.balance.after_step(step.after_update())
        for task in self.tasks.values():
            if isinstance(task, Remembers):
                task.end_step()
        self._epoch_sums = self._epoch_sums.to(means.device) + step.weighted(means)
        self._epoch_steps += 1

    def _count_zero_step(self) -> None:
        """Count it, and warn of the first."""
        self.zero_steps += 1
        if self.zero_steps == 1:
            rank_zero_warn(
                f"balance={type(self.balance).__name__}: the weight of every task is 0 in step {self.global_step},"
                " which trains nothing; zero_steps in metrics.csv and summary.json counts such steps\n"
                "    fix: if there are many, choose another balance"
            )

    def _skipped(self, window: list[Batch], means: Tensor, weights: Sequence[float], norm: Tensor) -> Skipped | None:
        """Why this step must not be taken, if a loss, weight or gradient is not finite; the same on every rank."""
        finite = bool(means.isfinite().all()) and all(map(math.isfinite, weights))
        if finite and (bool(norm.isfinite()) or self._scale() != 1.0):  # a scaler sees to itself
            return None
        losses = dict(zip(self.tasks, means.tolist(), strict=True))
        bad = [name for name, weight in zip(self.tasks, weights, strict=True) if not math.isfinite(weight)]
        if bad and all(map(math.isfinite, losses.values())):
            cause = Cause(4, f"the weight that the balance gives {bad[0]}", [id for b in window for id in b.ids if id])
        else:
            cause = explain(self.model, window, losses)
        causes = [Cause(*each) for each in gather_objects(cause)]
        first = min(causes, key=lambda cause: cause.place)
        ids = [id for cause in causes if cause.place == first.place for id in cause.ids]
        self._skipped_in_row += 1
        return Skipped(self.global_step + 1, losses, float(norm), first.first, ids, self._skipped_in_row)

    def _balances(self) -> list[Balance | ModalityBalance]:
        """Those that keep something from one step to the next."""
        return [self.balance, *([] if self.modality_balance is None else [self.modality_balance])]

    def _drop_step(
        self, optimizer: LightningOptimizer, states: Sequence[dict[str, Any]], statistics: Statistics
    ) -> None:
        """Count the step, and leave everything as it was before."""
        for balance, state in zip(self._balances(), states, strict=True):
            balance.restore(state)
        statistics.restore()
        for task in self.tasks.values():
            if isinstance(task, Remembers):
                task.drop_step()
        if self._scale() == 1.0:
            optimizer.zero_grad()  # what has no gradient is passed over, also its moments and its decay
        optimizer.step()

    def _frozen_now(self) -> list[nn.Module]:
        """The encoders whose `freeze_until` is a later step."""
        steps = {name: tuning.freeze_until for name, tuning in self.tunings.items()}
        return [
            self.model.encoders.get_submodule(name)
            for name, step in steps.items()
            if step is not None and self.global_step < step
        ]

    @contextmanager
    def _synchronized(self, last: bool) -> Iterator[None]:
        """Gradients are exchanged once a step, after its last micro-batch."""
        strategy = self.trainer.strategy
        if last or not isinstance(strategy, ParallelStrategy):
            yield
            return
        with without_exchange(self.model) if self._is_shared else strategy.block_backward_sync():
            yield

    @property
    def _is_shared(self) -> bool:
        """Whether each rank keeps a share of the weights."""
        return isinstance(self.trainer.strategy, ModelParallelStrategy)

    def _clip(self, optimizer: Any) -> Tensor:
        """Clip by the norm of all gradients and give that norm."""
        gradients = [p for p in self.parameters() if p.grad is not None]
        norm = norm_of([p.grad for p in gradients if p.grad is not None])
        scale = self._scale()
        if self.gradient_clip_val is not None:
            clip(gradients, self.gradient_clip_val * scale, norm)
        return norm / scale

    def _norms(self) -> dict[str, Tensor]:
        """The norm of the gradients of each encoder, before clipping, if there are several and it is to be logged."""
        if self.global_step % self._log_interval or len(self.model.encoders) < 2:
            return {}
        scale = self._scale()
        parts = {m: [p.grad for p in e.parameters() if p.grad is not None] for m, e in self.model.encoders.items()}
        return {f"grad_norm/{m}": norm_of(found) / scale for m, found in parts.items() if found}

    def _scale(self) -> float:
        """By how much gradients are too large now; Lightning unscales inside optimizer.step."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            return plugin.scaler.get_scale()
        return 1.0

    def on_train_start(self) -> None:
        """Where a run goes on with other options of its optimizer, these are what counts."""
        num_steps = int(min(self.trainer.num_training_batches, self.trainer.estimated_stepping_batches))
        if num_steps < self.log_every_n_steps:  # else a short run has one row, and an epoch repeats that of the last
            self._log_interval = max(1, num_steps // 2)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for group, asked in zip(optimizer.param_groups, self._asked, strict=True):
            group.update({name: asked[name] for name in self.retuned if name in asked and name != "lr"})

    def on_train_epoch_start(self) -> None:
        """Start the clock of samples per second."""
        self._restart_clock()

    def on_train_epoch_end(self) -> None:
        """Tell the balance how each task fared."""
        if self._epoch_steps:
            losses = (self._epoch_sums / self._epoch_steps).tolist()
            self.balance.end_epoch(dict(zip(self.tasks, losses, strict=True)))
        self._epoch_sums, self._epoch_steps = torch.zeros_like(self._epoch_sums), 0

    def _restart_clock(self) -> None:
        self._samples, self._clock = 0, time.perf_counter()

    def _log_step(
        self,
        means: Tensor,
        weights: Sequence[float],
        norms: Mapping[str, Tensor],
        learning_rate: float,
        told: Mapping[str, float],
    ) -> None:
        losses = dict(zip(self.tasks, means, strict=True))
        loss = _weighted(list(means), weights)
        rate = self._samples / (time.perf_counter() - self._clock)  # loading counts, validation does not
        self._restart_clock()
        values = {f"train/{name}/loss": value for name, value in losses.items()}
        values |= {"lr": learning_rate, **norms, "train/loss": loss, **told}
        values |= {} if self.modality_balance is None else self.modality_balance.values()
        if not isinstance(self.balance, Fixed):
            values |= {f"balance/{n}": w for n, w in zip(self.tasks, weights, strict=True)} | self.balance.values()
            values["zero_steps"] = self.zero_steps
        self._log(values | {"time/samples_per_second": rate})

    def _log(self, values: Mapping[str, Any]) -> None:
        """Send values to the loggers at the optimizer step, which is the step of the whole project."""
        floats = {name: float(v) for name, v in values.items()}
        self.log_dict(floats, logger=False)  # for callbacks that watch a metric
        self.log_dict(_shown(floats), logger=False, prog_bar=True)
        step = self.global_step if self.step_of_weights is None else self.step_of_weights
        # a trainer that only looks at weights counts no epochs
        epoch = {"epoch": self.current_epoch} if self.step_of_weights is None else {}
        for logger in self.trainer.loggers:
            logger.log_metrics(floats | epoch, step=step)

    # -------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self._start_evaluation("test")

    def _start_evaluation(self, stage: str) -> None:
        for task in self.tasks.values():
            if isinstance(task, Staged):
                task.start_evaluation(stage)
        self._sums = {}
        self._judged = dict.fromkeys(self.subset_metrics, torch.zeros(2, dtype=torch.long, device=self.device))
        self._attention = dict.fromkeys(self.model.encoders, torch.zeros((), dtype=torch.double, device=self.device))
        by_row = [name for name, task in self.tasks.items() if judges_rows(task)]
        self._rows = dict.fromkeys(by_row, torch.zeros(2, dtype=torch.long, device=self.device))
        for metric in [*self.metrics.values(), *self.subset_metrics.values(), *self.same_row_metrics.values()]:
            cast(Metric, metric).reset()

    def validation_step(self, window: list[Batch], batch_idx: int) -> None:
        """Show one batch to the metrics of every task, and how each modality fares alone."""
        view = self._evaluate(window[0])
        self._judge(view, [(name, subset) for name, subset in self._judged_subsets() if len(subset) == 1])
        self._watch_attention(view)
        if self.modality_balance is not None:
            self.modality_balance.validate(view)

    def test_step(self, window: list[Batch], batch_idx: int) -> None:
        """As validation, and again with some modalities alone."""
        view = self._evaluate(window[0])
        self._judge(view, self._judged_subsets())
        self._judge_same_rows(view)
        if batch_idx == 0:
            self._looks = self.look(view)

    def _judge(self, view: View, subsets: list[tuple[str, tuple[str, ...]]]) -> None:
        for name, subset in subsets:
            part, task, key = view.only(subset), self.tasks[name], _subset_key(name, subset)
            task.update(self.subset_metrics[key], part.predictions(name), part.batch)
            num_rows = (_labelled(task, part.batch) & part.batch.has_any(task.needs)).sum()
            self._judged[key] = self._judged[key] + torch.stack([task.count(part.batch), num_rows])

    def _judge_same_rows(self, view: View) -> None:
        """All modalities together on the rows that have one of a subset, to compare it with."""
        for name, subset in self._judged_subsets():
            key = _subset_key(name, subset)
            if key in self.same_row_metrics:
                left = view.batch.only(subset).has_any(self.tasks[name].needs)
                labelled = {target: known & left for target, known in view.batch.labelled.items()}
                batch = replace(view.batch, labelled=labelled)
                self.tasks[name].update(self.same_row_metrics[key], view.predictions(name), batch)

    def _watch_attention(self, view: View) -> None:
        """How much of the attention in the fusion goes to each modality; nothing where it has no maps."""
        for m, mass in attention_mass(view.attention(), list(self.model.encoders)).items():
            self._attention[m] = self._attention[m] + mass.to(self.device)

    def _judged_subsets(self) -> list[tuple[str, tuple[str, ...]]]:
        return [
            (name, subset)
            for name, task in self.tasks.items()
            for subset in self.test_subsets
            if "fused" in task.reads and set(task.needs) <= set(subset)
        ]

    def _evaluate(self, batch: Batch) -> View:
        view = self.model.view(batch)
        for name, task in self.tasks.items():
            predictions = view.predictions(name)
            task.update(self.metrics[name], predictions, batch)
            loss, count = task.loss(predictions, batch)
            both = torch.stack([loss.detach().double(), count.double()])
            self._sums[name] = self._sums.get(name, torch.zeros_like(both)) + both
            if name in self._rows:
                labelled = _labelled(task, batch)
                without = labelled & ~batch.has_any(task.needs)
                self._rows[name] = self._rows[name] + torch.stack([labelled.sum(), without.sum()])
        return view

    def on_validation_epoch_end(self) -> None:
        """Compute and log the metrics of the validation split."""
        self._finish_evaluation("val")
        if self.modality_balance is not None:
            self.modality_balance.end_validation()
        self._restart_clock()

    def on_test_epoch_end(self) -> None:
        """Compute and log the metrics of the test split."""
        self._finish_evaluation("test")

    def _finish_evaluation(self, stage: str) -> None:
        table: dict[str, dict[str, float | None]] = {}
        exhibits: list[Exhibit] = []
        losses: dict[str, Tensor] = {}
        rows = {name: total(counts).tolist() for name, counts in self._rows.items()}
        self.not_judged = [
            {"split": stage, "task": name, "rows": without, "of": labelled}
            for name, (labelled, without) in rows.items()
            if without
        ]
        for name, task in self.tasks.items():
            loss, count = total(self._sums[name])
            if count == 0:  # a split without anything that the task could be judged on
                continue
            values = cast(Metric, self.metrics[name]).compute()
            losses[name] = loss / count
            table[f"{name}/loss"] = {"value": float(losses[name]), "chance": None}
            entries = _scalars(name, values, task.chance(values))
            if stage == "test" and name in rows:
                for entry in entries.values():
                    entry["rows"] = rows[name][0] - rows[name][1]
            table |= entries
            exhibits += task.exhibits(values, partial(self.name_row, stage))
        for name, subset in self._judged_subsets():
            here = stage == "test" or len(subset) == 1
            if here and name in losses:
                table |= self._subset_entries(name, subset, stage)
        if losses:
            # with the tasks' own weights, whatever the balance: runs can be compared
            own = [self.tasks[name].weight for name in losses]
            table["loss"] = {"value": float(_weighted(list(losses.values()), own)), "chance": None}
        self.table, self.exhibits = table, [*exhibits, *(self._looks if stage == "test" else [])]
        self._log({f"{stage}/{name}": entry["value"] for name, entry in table.items()} | self._shares(stage))

    def _subset_entries(self, name: str, subset: tuple[str, ...], stage: str) -> dict[str, dict[str, float | None]]:
        """The figures of a task on a subset; in test also its rows, and what all modalities score on these rows."""
        key, prefix = _subset_key(name, subset), f"{name}/{'+'.join(subset)}_only"
        judged, num_rows = total(self._judged[key]).tolist()
        if judged == 0:
            return {}
        values = cast(Metric, self.subset_metrics[key]).compute()
        entries = _scalars(prefix, values, self.tasks[name].chance(values))
        if stage == "test" and name in self._rows:
            together = cast(Metric, self.same_row_metrics[key]).compute() if key in self.same_row_metrics else {}
            for metric, entry in entries.items():
                same = together.get(metric.removeprefix(f"{prefix}/"))
                entry |= {"rows": num_rows, "all_modalities": None if same is None else float(same)}
        return entries

    def _shares(self, stage: str) -> dict[str, Tensor]:
        """Each modality's share of the attention of the validation split, where the fusion chooses between them."""
        if stage != "val" or not self.model.has_maps:
            return {}
        sums = total(torch.stack(list(self._attention.values())))
        if sums.sum() == 0:
            return {}
        return {f"attention/{m}": share for m, share in zip(self._attention, sums / sums.sum(), strict=True)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What balances keep beside their parameters."""
        checkpoint["balance"] = {
            "state": self.balance.state(),
            "epoch_sums": self._epoch_sums.tolist(),
            "epoch_steps": self._epoch_steps,
            "zero_steps": self.zero_steps,
        }
        checkpoint["skipped_in_row"] = self._skipped_in_row
        checkpoint["tasks"] = {n: task.memory() for n, task in self.tasks.items() if isinstance(task, Remembers)}
        if self.modality_balance is not None:
            checkpoint["modality_balance"] = self.modality_balance.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        if "balance" in checkpoint:
            kept = checkpoint["balance"]
            self.balance.restore(kept["state"])
            self._epoch_sums = torch.tensor(kept["epoch_sums"], dtype=torch.double, device=self.device)
            self._epoch_steps = kept["epoch_steps"]
            self.zero_steps = kept.get("zero_steps", 0)  # checkpoints of 0.1 and before do not count them
        self._skipped_in_row = checkpoint.get("skipped_in_row", 0)
        for name, memory in checkpoint.get("tasks", {}).items():
            task = self.tasks.get(name)
            if isinstance(task, Remembers):
                task.recall(memory)
        if self.modality_balance is not None and "modality_balance" in checkpoint:
            self.modality_balance.restore(checkpoint["modality_balance"])

    def predict_step(self, window: list[Batch], batch_idx: int) -> list[dict[str, Any]]:
        """One dict a sample: its id and what each task says of it, or why a task says nothing."""
        batch = window[0]
        view = self.model.view(batch)
        said = {name: task.rows(view.predictions(name), batch) for name, task in self.tasks.items()}
        unread = {bad.id: bad.reason for bad in batch.bad}
        rows = []
        for i, (id, row) in enumerate(zip(batch.ids, batch.rows.tolist(), strict=True)):
            if not id:
                continue
            found = {name: rows_of[i] for name, rows_of in said.items() if rows_of[i]}
            reasons = {
                name: f"cannot be read: {unread[id]}" if id in unread else f"missing: {', '.join(missing)}"
                for name, task in self.tasks.items()
                if name not in found and (missing := _missing(task, batch, i))
            }
            rows.append({"id": id, "row": row} | found | ({"not_predicted": reasons} if reasons else {}))
        return rows

    # --------------------------------------------------------------- optimizer

    def configure_optimizers(self) -> Any:
        """Weight matrices decay; biases, norms, positions, tokens and temperatures do not. Encoders have rates."""
        asked: list[dict[str, Any]] = []
        rates = []
        for rate, decays, parameters in self.parameter_groups():
            # an optimizer does not take shares and what is whole together
            kinds = ([p for p in parameters if isinstance(p, DTensor) is shared] for shared in (False, True))
            for alike in filter(None, kinds):
                asked.append({"params": alike} if decays else {"params": alike, "weight_decay": 0.0})
                rates.append(rate)
        optimizer = self.make_optimizer(asked)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] *= rate
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = Following(optimizer, lambda step: self.schedule(step, steps))
        self._asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[tuple[float, bool, list[nn.Parameter]]]:
        """What learns, in the order of checkpoints, whoever keeps what: (rate over that of the run, decays, them)."""
        rates, places = self._rates(), _tables_of_places(self)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, p in self.named_parameters():
            if p.requires_grad:
                groups.setdefault((rates.get(id(p), 1.0), id(p) not in places and _decays(name, p)), []).append(p)
        # that of the heads first: its learning rate is the one that is logged
        ordered = sorted(groups, key=lambda key: (key[0] != 1.0, -key[0], not key[1]))
        return [(*key, groups[key]) for key in ordered]

    def _rates(self) -> dict[int, float]:
        """By the id of a parameter, its learning rate over that of the run; an encoder's holds inside it, too."""
        rates: dict[int, float] = {}
        for name, tuning in self.tunings.items():
            for key, rate in rates_of(self.model.encoders.get_submodule(name), tuning).items():
                rates[key] = rates.get(key, 1.0) * rate
        return rates


class ShardedLitModel(LitModel):
    """Of whose weights each rank keeps its share: `trainer=fsdp`."""

    def configure_model(self) -> None:
        """Share them out, once; Lightning asks for that before each of fit and test."""
        assert self.device_mesh is not None
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfWeights):  # Lightning leaves it to us here
            to_half(self.model)
        elif isinstance(plugin, DoublePrecision):
            self.double()
        mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(plugin.precision))
        self.model.to(self.trainer.strategy.root_device)
        shard(self.model, self.device_mesh["data_parallel"], gathered_in=mixed)


def _weighted(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of scalars."""
    terms = [w * loss for w, loss in zip(weights, losses, strict=True)]
    return sum(terms[1:], terms[0])


def _means_of(told: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> dict[str, float]:
    """What tasks tell of a step, over all ranks; nothing where nothing was counted."""
    parts = {f"train/{task}/{name}": pair for task, said in told.items() for name, pair in said.items()}
    if not parts:
        return {}
    sums = total(torch.stack([torch.stack([part.double() for part in pair]) for pair in parts.values()]))
    return {name: float(value / count) for name, (value, count) in zip(parts, sums, strict=True) if count > 0}


def _tables_of_places(module: nn.Module) -> set[int]:
    """By id, the weights of embeddings that number places or kinds and not words, such as BERT's positions."""
    tables = {name: part for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    return {id(table.weight) for name, table in tables.items() if _PLACES.search(name.rpartition(".")[2])}


def _decays(name: str, parameter: Tensor) -> bool:
    return name.endswith("weight") and parameter.ndim >= 2


def judges_rows(task: Task) -> bool:
    """Whether a labelled row is judged if it has one of the task's inputs; a dialogue needs none, a pair needs two."""
    return bool(task.targets) and (task.reads == ("fused",) or bool(task.needs))


def _labelled(task: Task, batch: Batch) -> Tensor:
    """(B,), bool: rows that have all targets of the task."""
    return torch.stack([batch.rows >= 0, *(batch.labelled[target] for target in task.targets)]).all(dim=0)


def _missing(task: Task, batch: Batch, row: int) -> list[str]:
    """The inputs that a row would need for the task; any one of all will do where the task names none."""
    missing = [m for m in task.needs or batch.present if not batch.present[m][row]]
    return missing if task.needs or len(missing) == len(batch.present) else []


def _subset_key(task: str, subset: tuple[str, ...]) -> str:
    return f"{task}+{'+'.join(subset)}"


def _scalars(
    prefix: str, values: Mapping[str, Tensor], chance: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """The scalars among computed values, with what guessing would score."""
    return {
        f"{prefix}/{name}": {"value": float(value), "chance": chance.get(name)}
        for name, value in values.items()
        if value.ndim == 0 and not name.endswith("/chance")
    }


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    """What the progress bar has room for."""
    names = {"train/loss": "loss", "val/loss": "val_loss", "time/samples_per_second": "samples/s"}
    return {short: values[name] for name, short in names.items() if name in values}
