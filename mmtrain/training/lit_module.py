"""The LightningModule: training loop, logging, optimizer. The architecture is in `mmtrain.model`.

Optimization is manual. `training_step` gets all micro-batches of one optimizer step. The labelled items of every task
are counted over all micro-batches and ranks before any network runs. Each task's mean is taken once, with this count.
So the weight of a sample does not depend on how samples are split into micro-batches and ranks.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

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

from mmtrain.balance.balance import Balance
from mmtrain.balance.fixed import Fixed
from mmtrain.balance.modality.balance import ModalityBalance
from mmtrain.distributed import all_reduce_sum, gather_objects, world_size
from mmtrain.layers.finetuning import Tuning, rates_of
from mmtrain.model import MultimodalModel
from mmtrain.tasks.task import LogsStepMetrics, SupportsExtraState, Task
from mmtrain.training.evaluation import Evaluation, Table
from mmtrain.training.fsdp.shard import all_reduce_unsharded, clip, no_gradient_sync, norm_of, shard
from mmtrain.training.nonfinite import BatchNormState, NonFiniteCause, SkippedStep, explain
from mmtrain.training.optim.schedules import ResumableLambdaLR
from mmtrain.training.precision.bf16_true import BF16TruePrecision, to_half
from mmtrain.training.step import TrainingStep
from mmtrain.types import AttentionMap, Batch, ReportItem, View

# names that transformers' models give to embeddings of positions, distances and token types
_PLACES = re.compile(r"(^|_)(pos|positions?|positional|relative|rel|distance|segment|type)(_|$)|^wpe$")


def row_number(stage: str, row: int) -> str:
    """The id of a row whose split is not known."""
    return str(row)


def no_attention_items(view: View) -> list[AttentionMap]:
    """Nothing for the report."""
    return []


def ignore_skipped(skipped: SkippedStep) -> None:
    """Do nothing about a skipped step."""


class LitModel(LightningModule):
    """Trains, validates, tests and predicts with a `MultimodalModel`.

    Args:
        model: the network.
        balance: computes a weight for each task in each step; see `mmtrain.balance.balance`.
        optimizer: parameter groups -> optimizer.
        schedule: (step, total steps) -> factor of the learning rate.
        seed: the random state of a step is a function of it, the step and the rank.
        gradient_clip_val: maximum norm of all gradients; None does not clip.
        log_every_n_steps: training values are logged at every n-th step. An epoch or run of fewer steps has two rows.
        test_subsets: of modalities; in test, tasks on fused features are also evaluated with these alone.
        tunings: how each encoder is trained, by its dotted name below the model's encoders.
        modality_balance: slows down the modality that learns faster; None does nothing.
        gradient_cache: whether tasks that compare rows compare all rows of a step, over all of its micro-batches.
        row_id: returns the id of a row, given the stage (val or test) and the number of the row in its split.
        attention_items: returns what the report draws of the attention in a batch.
        on_step_skipped: called on every rank after a step that was not finite; it may end training by an exception.
        changed_optimizer_options: names of optimizer options that differ from those in the checkpoint of a resumed run.
        checkpoint_step: the step of the checkpoint that is evaluated; metrics are logged at it. None in training.

    The callables are copied with the module by `copy.deepcopy` (EMA). Functions and closures are copied by reference;
    a bound method or a `functools.partial` would copy the objects that it refers to, such as the data.
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
        row_id: Callable[[str, int], str] = row_number,
        attention_items: Callable[[View], list[AttentionMap]] = no_attention_items,
        on_step_skipped: Callable[[SkippedStep], None] = ignore_skipped,
        changed_optimizer_options: Sequence[str] = (),
        checkpoint_step: int | None = None,
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
        self.tunings = tunings
        self.modality_balance = modality_balance
        self.gradient_cache = gradient_cache
        self.tasks = model.named_tasks()
        self.evaluation = Evaluation(model, test_subsets)
        self.table: Table = {}  # of the last evaluation
        self.report_items: list[ReportItem] = []  # of the last evaluation
        self.row_id = row_id
        self.attention_items = attention_items
        self.on_step_skipped = on_step_skipped
        self.changed_optimizer_options = changed_optimizer_options
        self.checkpoint_step = checkpoint_step
        self._attention_items: list[AttentionMap] = []
        self._epoch_sums, self._epoch_steps = torch.zeros(len(self.tasks), dtype=torch.double), 0
        self._samples, self._clock = 0, 0.0
        self._skipped_in_row = 0
        self.zero_steps = 0  # steps with labelled items in which the balance gave every task a weight of 0
        self._optimizer_options: list[dict[str, Any]] = []  # by parameter group, as the configuration sets them

    # ---------------------------------------------------------------- training

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
        before = deepcopy([b.extra_state() for b in self._balances()]), BatchNormState(self.model)
        weights = [w * t.weight for w, t in zip(self.balance.weights(step).tolist(), self.tasks.values(), strict=True)]
        means = self._backward(step, weights, waiting=[p for e in frozen for p in e.parameters() if p.requires_grad])
        if self.modality_balance is not None:
            self.modality_balance.modulate(self.model.encoders, seed=step.seed)
        norms = self._norms()
        norm = self._clip(optimizer)
        learning_rate = optimizer.param_groups[0]["lr"]  # before the schedule sets that of the next step
        skipped = self._skipped(step.window, means, weights, norm)
        if skipped is None:
            with self.trainer.profiler.profile("optimizer"):  # type: ignore[attr-defined]
                optimizer.step()
            schedule.step()
            if not any(weights) and any(bool(count) for count in step.counts.values()):
                self._count_zero_step()
            self._end_step(step, means)
        else:
            self._drop_step(optimizer, *before)
            schedule.step()
            self.on_step_skipped(skipped)
        self._samples += sum(len(batch) for batch in window) * world_size()
        metrics = {name: task.step_metrics() for name, task in self.tasks.items() if isinstance(task, LogsStepMetrics)}
        if (self.global_step - 1) % self._log_interval == 0 or skipped is not None:
            self._log_step(means, weights, norms | {"grad_norm": norm}, learning_rate, _means_of(metrics))

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
                    means = all_reduce_sum(means)
                    own = self.balance.own_loss(step.weighted(means))
                    loss = loss if own is None else loss + own
                # DDP waits for a gradient of every parameter that can have one
                waits = world_size() > 1 and not self._is_shared
                with self.trainer.profiler.profile("backward"):  # type: ignore[attr-defined]
                    self.manual_backward(loss + sum((p * 0.0).sum() for p in waiting) if waits else loss)
        if self._is_shared:
            all_reduce_unsharded(self)
        for p in waiting:
            p.grad = None  # the optimizer then skips the parameter, with its moments and its weight decay
        return means

    def _end_step(self, step: TrainingStep, means: Tensor) -> None:
        """Update what is kept from step to step, after the optimizer step."""
        self._skipped_in_row = 0
        self.balance.after_step(step.after_update())
        for task in self.tasks.values():
            if isinstance(task, SupportsExtraState):
                task.end_step()
        self._epoch_sums = self._epoch_sums.to(means.device) + step.weighted(means)
        self._epoch_steps += 1

    def _count_zero_step(self) -> None:
        """Count the step, and warn if it is the first one."""
        self.zero_steps += 1
        if self.zero_steps == 1:
            rank_zero_warn(
                f"balance={type(self.balance).__name__}: the weight of every task is 0 in step {self.global_step},"
                " which trains nothing; zero_steps in metrics.csv and summary.json counts such steps\n"
                "    fix: if there are many, choose another balance"
            )

    def _skipped(
        self, window: list[Batch], means: Tensor, weights: Sequence[float], norm: Tensor
    ) -> SkippedStep | None:
        """Return why to skip the step if a loss, weight or gradient is not finite, else None; equal on every rank."""
        finite = bool(means.isfinite().all()) and all(map(math.isfinite, weights))
        if finite and (bool(norm.isfinite()) or self._scale() != 1.0):  # a gradient scaler skips such steps itself
            return None
        losses = dict(zip(self.tasks, means.tolist(), strict=True))
        bad = [name for name, weight in zip(self.tasks, weights, strict=True) if not math.isfinite(weight)]
        if bad and all(map(math.isfinite, losses.values())):
            cause = NonFiniteCause(
                4, f"the weight that the balance gives {bad[0]}", [id for b in window for id in b.ids if id]
            )
        else:
            cause = explain(self.model, window, losses)
        causes = [NonFiniteCause(*each) for each in gather_objects(cause)]
        first = min(causes, key=lambda cause: cause.place)
        ids = [id for cause in causes if cause.place == first.place for id in cause.ids]
        self._skipped_in_row += 1
        return SkippedStep(self.global_step + 1, losses, float(norm), first.first, ids, self._skipped_in_row)

    def _balances(self) -> list[Balance | ModalityBalance]:
        """The balances, which have state from one step to the next."""
        return [self.balance, *([] if self.modality_balance is None else [self.modality_balance])]

    def _drop_step(
        self, optimizer: LightningOptimizer, states: Sequence[dict[str, Any]], statistics: BatchNormState
    ) -> None:
        """Count the step, and restore the state from before it."""
        for balance, state in zip(self._balances(), states, strict=True):
            balance.load_extra_state(state)
        statistics.restore()
        for task in self.tasks.values():
            if isinstance(task, SupportsExtraState):
                task.drop_step()
        if self._scale() == 1.0:
            optimizer.zero_grad()  # a parameter without a gradient is skipped, with its moments and its weight decay
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
        """Context of a backward pass: ranks exchange gradients only after the last micro-batch of a step."""
        strategy = self.trainer.strategy
        if last or not isinstance(strategy, ParallelStrategy):
            yield
            return
        with no_gradient_sync(self.model) if self._is_shared else strategy.block_backward_sync():
            yield

    @property
    def _is_shared(self) -> bool:
        """Whether the weights are sharded over the ranks."""
        return isinstance(self.trainer.strategy, ModelParallelStrategy)

    def _clip(self, optimizer: Any) -> Tensor:
        """Clip the gradients by the norm of all of them, and return this norm."""
        gradients = [p for p in self.parameters() if p.grad is not None]
        norm = norm_of([p.grad for p in gradients if p.grad is not None])
        scale = self._scale()
        if self.gradient_clip_val is not None:
            clip(gradients, self.gradient_clip_val * scale, norm)
        return norm / scale

    def _norms(self) -> dict[str, Tensor]:
        """The norm of each encoder's gradients before clipping; {} in a step without a log or with one encoder."""
        if self.global_step % self._log_interval or len(self.model.encoders) < 2:
            return {}
        scale = self._scale()
        parts = {m: [p.grad for p in e.parameters() if p.grad is not None] for m, e in self.model.encoders.items()}
        return {f"grad_norm/{m}": norm_of(gradients) / scale for m, gradients in parts.items() if gradients}

    def _scale(self) -> float:
        """The factor by which gradients are scaled up; Lightning unscales them inside `optimizer.step`."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            return plugin.scaler.get_scale()
        return 1.0

    def on_train_start(self) -> None:
        """Set how often to log, and apply the optimizer options that changed since the checkpoint of a resumed run."""
        num_steps = int(min(self.trainer.num_training_batches, self.trainer.estimated_stepping_batches))
        if num_steps < self.log_every_n_steps:  # else a short run would have a single row
            self._log_interval = max(1, num_steps // 2)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        changed = [name for name in self.changed_optimizer_options if name != "lr"]  # the schedule sets the rate
        for group, options in zip(optimizer.param_groups, self._optimizer_options, strict=True):
            group.update({name: options[name] for name in changed if name in options})

    def on_train_epoch_start(self) -> None:
        """Start the clock for samples per second."""
        self._restart_clock()

    def on_train_epoch_end(self) -> None:
        """Give the balance each task's mean loss over the epoch."""
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
        metrics: Mapping[str, float],
    ) -> None:
        losses = dict(zip(self.tasks, means, strict=True))
        loss = _weighted(list(means), weights)
        rate = self._samples / (time.perf_counter() - self._clock)  # includes loading, but not validation
        self._restart_clock()
        values = {f"train/{name}/loss": value for name, value in losses.items()}
        values |= {"lr": learning_rate, **norms, "train/loss": loss, **metrics}
        values |= {} if self.modality_balance is None else self.modality_balance.values()
        if not isinstance(self.balance, Fixed):
            values |= {f"balance/{n}": w for n, w in zip(self.tasks, weights, strict=True)} | self.balance.values()
            values["zero_steps"] = self.zero_steps
        self._log(values | {"time/samples_per_second": rate})

    def _log(self, values: Mapping[str, Any]) -> None:
        """Send values to the loggers; their step is the optimizer step."""
        floats = {name: float(v) for name, v in values.items()}
        self.log_dict(floats, logger=False)  # for callbacks that monitor a metric
        self.log_dict(_shown(floats), logger=False, prog_bar=True)
        step = self.global_step if self.checkpoint_step is None else self.checkpoint_step
        # a trainer that only evaluates a checkpoint counts no epochs
        epoch = {"epoch": self.current_epoch} if self.checkpoint_step is None else {}
        for logger in self.trainer.loggers:
            logger.log_metrics(floats | epoch, step=step)

    # -------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Clear the metrics."""
        self.evaluation.start("val", self.device)

    def on_test_epoch_start(self) -> None:
        """Clear the metrics."""
        self.evaluation.start("test", self.device)

    def validation_step(self, window: list[Batch], batch_idx: int) -> None:
        """Add a batch to the metrics of every task, with all modalities and with each one alone."""
        view = self.model.view(window[0])
        self.evaluation.update(view)
        if self.modality_balance is not None:
            self.modality_balance.validate(view)

    def test_step(self, window: list[Batch], batch_idx: int) -> None:
        """Add a batch to the metrics of every task, with all modalities and with the subsets of them."""
        view = self.model.view(window[0])
        self.evaluation.update(view)
        if batch_idx == 0:
            self._attention_items = self.attention_items(view)

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
        self.table = self.evaluation.compute()
        shown = self.evaluation.report_items(partial(self.row_id, stage))
        self.report_items = [*shown, *(self._attention_items if stage == "test" else [])]
        values = {f"{stage}/{name}": entry["value"] for name, entry in self.table.items()}
        self._log(values | self.evaluation.attention_shares())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of balances and tasks, in addition to their parameters."""
        checkpoint["balance"] = {
            "state": self.balance.extra_state(),
            "epoch_sums": self._epoch_sums.tolist(),
            "epoch_steps": self._epoch_steps,
            "zero_steps": self.zero_steps,
        }
        checkpoint["skipped_in_row"] = self._skipped_in_row
        checkpoint["tasks"] = {
            n: task.extra_state() for n, task in self.tasks.items() if isinstance(task, SupportsExtraState)
        }
        if self.modality_balance is not None:
            checkpoint["modality_balance"] = self.modality_balance.extra_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of balances and tasks."""
        if "balance" in checkpoint:
            kept = checkpoint["balance"]
            self.balance.load_extra_state(kept["state"])
            self._epoch_sums = torch.tensor(kept["epoch_sums"], dtype=torch.double, device=self.device)
            self._epoch_steps = kept["epoch_steps"]
            self.zero_steps = kept.get("zero_steps", 0)  # not in checkpoints of versions up to 0.1
        self._skipped_in_row = checkpoint.get("skipped_in_row", 0)
        for name, memory in checkpoint.get("tasks", {}).items():
            task = self.tasks.get(name)
            if isinstance(task, SupportsExtraState):
                task.load_extra_state(memory)
        if self.modality_balance is not None and "modality_balance" in checkpoint:
            self.modality_balance.load_extra_state(checkpoint["modality_balance"])

    def predict_step(self, window: list[Batch], batch_idx: int) -> list[dict[str, Any]]:
        """Return one dict per sample: its id, and each task's prediction or the reason why there is none."""
        batch = window[0]
        view = self.model.view(batch)
        predicted = {name: task.rows(view.predictions(name), batch) for name, task in self.tasks.items()}
        unread = {bad.id: bad.reason for bad in batch.bad}
        rows = []
        for i, (id, row) in enumerate(zip(batch.ids, batch.rows.tolist(), strict=True)):
            if not id:
                continue
            predictions = {name: rows_of[i] for name, rows_of in predicted.items() if rows_of[i]}
            reasons = {
                name: f"cannot be read: {unread[id]}" if id in unread else f"missing: {', '.join(missing)}"
                for name, task in self.tasks.items()
                if name not in predictions and (missing := _missing(task, batch, i))
            }
            rows.append({"id": id, "row": row} | predictions | ({"not_predicted": reasons} if reasons else {}))
        return rows

    # --------------------------------------------------------------- optimizer

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule.

        Only weight matrices have weight decay; biases, norms, positions, class tokens and temperatures do not. Encoders
        have their own learning rates.
        """
        groups: list[dict[str, Any]] = []
        rates = []
        for rate, decays, parameters in self.parameter_groups():
            # an optimizer's parameter group cannot have both sharded and other parameters
            kinds = ([p for p in parameters if isinstance(p, DTensor) is sharded] for sharded in (False, True))
            for params in filter(None, kinds):
                groups.append({"params": params} if decays else {"params": params, "weight_decay": 0.0})
                rates.append(rate)
        optimizer = self.make_optimizer(groups)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] *= rate
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = ResumableLambdaLR(optimizer, lambda step: self.schedule(step, steps))
        self._optimizer_options = [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[tuple[float, bool, list[nn.Parameter]]]:
        """Trainable parameters by (learning rate multiplier, weight decay), in checkpoint order, sharded or not."""
        rates, places = self._rates(), _tables_of_places(self)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, p in self.named_parameters():
            if p.requires_grad:
                groups.setdefault((rates.get(id(p), 1.0), id(p) not in places and _decays(name, p)), []).append(p)
        # the group of the heads comes first, because its learning rate is logged
        ordered = sorted(groups, key=lambda key: (key[0] != 1.0, -key[0], not key[1]))
        return [(*key, groups[key]) for key in ordered]

    def _rates(self) -> dict[int, float]:
        """Learning rate multipliers by the id of the parameter; that of an encoder also applies to encoders in it."""
        rates: dict[int, float] = {}
        for name, tuning in self.tunings.items():
            for key, rate in rates_of(self.model.encoders.get_submodule(name), tuning).items():
                rates[key] = rates.get(key, 1.0) * rate
        return rates


class ShardedLitModel(LitModel):
    """A `LitModel` whose weights are sharded over the ranks: `trainer=fsdp`."""

    def configure_model(self) -> None:
        """Shard the weights, once; Lightning calls this before fit and before test."""
        assert self.device_mesh is not None
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, BF16TruePrecision):  # Lightning does not convert a sharded model
            to_half(self.model)
        elif isinstance(plugin, DoublePrecision):
            self.double()
        mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(plugin.precision))
        self.model.to(self.trainer.strategy.root_device)
        shard(self.model, self.device_mesh["data_parallel"], gathered_in=mixed)


def _weighted(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of scalars."""
    terms = [w * loss for w, loss in zip(weights, losses, strict=True)]
    return sum(terms[1:], terms[0])


def _means_of(metrics: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> dict[str, float]:
    """Means of what tasks log of a step in addition to their losses, over all ranks; without those of count 0."""
    parts = {f"train/{task}/{name}": pair for task, values in metrics.items() for name, pair in values.items()}
    if not parts:
        return {}
    sums = all_reduce_sum(torch.stack([torch.stack([part.double() for part in pair]) for pair in parts.values()]))
    return {name: float(value / count) for name, (value, count) in zip(parts, sums, strict=True) if count > 0}


def _tables_of_places(module: nn.Module) -> set[int]:
    """Ids of the weights of embeddings of positions or token types instead of words, such as BERT's positions."""
    tables = {name: part for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    return {id(table.weight) for name, table in tables.items() if _PLACES.search(name.rpartition(".")[2])}


def _decays(name: str, parameter: Tensor) -> bool:
    return name.endswith("weight") and parameter.ndim >= 2


def _missing(task: Task, batch: Batch, row: int) -> list[str]:
    """The inputs of a task that a row does not have. If the task names none, a row with any input has all."""
    missing = [m for m in task.needs or batch.present if not batch.present[m][row]]
    return missing if task.needs or len(missing) == len(batch.present) else []


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    """The values for the progress bar, under short names."""
    names = {"train/loss": "loss", "val/loss": "val_loss", "time/samples_per_second": "samples/s"}
    return {short: values[name] for name, short in names.items() if name in values}
