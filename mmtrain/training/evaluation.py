"""Metrics of a model on a split: of every task, with all modalities, and with subsets of them.

`Evaluation` collects them batch by batch, for the validation and test loops of the LightningModule. `evaluate` runs a
trained model over any loader and returns the table. It logs nothing, and changes neither the LightningModule nor its
metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from mmtrain.distributed import all_reduce_sum
from mmtrain.model import MultimodalModel
from mmtrain.tasks.task import HandlesEvaluationStart, Task
from mmtrain.training.attention_maps import attention_share
from mmtrain.types import Batch, ReportItem, View

Table = dict[str, dict[str, float | None]]  # by "task/metric": its value, the score of guessing, the number of rows


class Evaluation(nn.Module):
    """Metrics over the batches of one split.

    Args:
        model: that is evaluated.
        subsets: of modalities; tasks on fused features are also evaluated with these alone. Validation uses only the
            subsets of one modality.

    Attributes:
        metrics: by task.
        not_judged: by task, the labelled rows of the split that have none of its inputs, if there are any.
    """

    def __init__(self, model: MultimodalModel, subsets: Sequence[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self.subsets = subsets
        self.tasks = model.named_tasks()
        self.metrics = nn.ModuleDict({name: task.metrics() for name, task in self.tasks.items()})
        self.subset_metrics = nn.ModuleDict(
            {_subset_key(name, s): self.tasks[name].metrics() for name, s in self._task_subsets()}
        )
        # all modalities, on the rows of a subset; not of tasks that are slow to evaluate
        self.same_row_metrics = nn.ModuleDict(
            {
                _subset_key(name, s): self.tasks[name].metrics()
                for name, s in self._task_subsets()
                if evaluates_rows(self.tasks[name]) and not isinstance(self.tasks[name], HandlesEvaluationStart)
            }
        )
        self.not_judged: list[dict[str, Any]] = []
        self._modalities = list(model.encoders)
        self._has_maps = model.has_maps
        self._stage = "val"
        self._sums: dict[str, Tensor] = {}
        self._judged: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}
        self._attention: dict[str, Tensor] = {}
        self._values: dict[str, dict[str, Tensor]] = {}

    def start(self, stage: str, device: torch.device) -> None:
        """Clear everything before another evaluation of a split.

        Args:
            stage: val or test.
            device: of the model.
        """
        for task in self.tasks.values():
            if isinstance(task, HandlesEvaluationStart):
                task.on_evaluation_start(stage)
        self._stage = stage
        self._sums = {}
        self._judged = dict.fromkeys(self.subset_metrics, torch.zeros(2, dtype=torch.long, device=device))
        self._attention = dict.fromkeys(self._modalities, torch.zeros((), dtype=torch.double, device=device))
        by_row = [name for name, task in self.tasks.items() if evaluates_rows(task)]
        self._rows = dict.fromkeys(by_row, torch.zeros(2, dtype=torch.long, device=device))
        for metric in [*self.metrics.values(), *self.subset_metrics.values(), *self.same_row_metrics.values()]:
            cast(Metric, metric).reset()

    def update(self, view: View) -> None:
        """Add a batch of the split."""
        for name, task in self.tasks.items():
            self._add(name, task, view)
        for name, subset in self._task_subsets():
            if self._stage == "test" or len(subset) == 1:
                self._add_subset(name, subset, view)
        if self._stage == "test":
            self._add_same_rows(view)
        else:
            self._add_attention(view)

    def _add(self, name: str, task: Task, view: View) -> None:
        predictions, batch = view.predictions(name), view.batch
        task.update(self.metrics[name], predictions, batch)
        loss, count = task.loss(predictions, batch)
        both = torch.stack([loss.detach().double(), count.double()])
        self._sums[name] = self._sums.get(name, torch.zeros_like(both)) + both
        if name in self._rows:
            labelled = _labelled(task, batch)
            without = labelled & ~batch.has_any(task.needs)
            self._rows[name] = self._rows[name] + torch.stack([labelled.sum(), without.sum()])

    def _add_subset(self, name: str, subset: tuple[str, ...], view: View) -> None:
        part, task, key = view.only(subset), self.tasks[name], _subset_key(name, subset)
        task.update(self.subset_metrics[key], part.predictions(name), part.batch)
        num_rows = (_labelled(task, part.batch) & part.batch.has_any(task.needs)).sum()
        self._judged[key] = self._judged[key] + torch.stack([task.count(part.batch), num_rows])

    def _add_same_rows(self, view: View) -> None:
        """All modalities on the rows that have one of a subset, for a comparison on equal rows."""
        for name, subset in self._task_subsets():
            key = _subset_key(name, subset)
            if key in self.same_row_metrics:
                left = view.batch.only(subset).has_any(self.tasks[name].needs)
                labelled = {target: known & left for target, known in view.batch.labelled.items()}
                batch = replace(view.batch, labelled=labelled)
                self.tasks[name].update(self.same_row_metrics[key], view.predictions(name), batch)

    def _add_attention(self, view: View) -> None:
        """How much of the attention in the fusion each modality gets; nothing if the fusion has no maps."""
        for m, mass in attention_share(view.attention(), self._modalities).items():
            self._attention[m] = self._attention[m] + mass.to(self._attention[m].device)

    def compute(self) -> Table:
        """Return the figures over all batches and ranks. All ranks call it at the same time."""
        table: Table = {}
        losses: dict[str, Tensor] = {}
        self._values = {}
        rows = {name: all_reduce_sum(counts).tolist() for name, counts in self._rows.items()}
        self.not_judged = [
            {"split": self._stage, "task": name, "rows": without, "of": labelled}
            for name, (labelled, without) in rows.items()
            if without
        ]
        for name, task in self.tasks.items():
            loss, count = all_reduce_sum(self._sums[name])
            if count == 0:  # no row of the split has what the task needs
                continue
            self._values[name] = values = cast(Metric, self.metrics[name]).compute()
            losses[name] = loss / count
            table[f"{name}/loss"] = {"value": float(losses[name]), "chance": None}
            entries = _scalars(name, values, task.chance(values))
            if self._stage == "test" and name in rows:
                for entry in entries.values():
                    entry["rows"] = rows[name][0] - rows[name][1]
            table |= entries
        for name, subset in self._task_subsets():
            if name in losses and (self._stage == "test" or len(subset) == 1):
                table |= self._subset_entries(name, subset)
        if losses:
            # with the tasks' own weights and without the balance, so that runs can be compared
            terms = [self.tasks[name].weight * loss for name, loss in losses.items()]
            table["loss"] = {"value": float(sum(terms[1:], terms[0])), "chance": None}
        return table

    def _subset_entries(self, name: str, subset: tuple[str, ...]) -> Table:
        """A task's figures on a subset; in test also its number of rows, and all modalities on the same rows."""
        key, prefix = _subset_key(name, subset), f"{name}/{'+'.join(subset)}_only"
        evaluated, num_rows = all_reduce_sum(self._judged[key]).tolist()
        if evaluated == 0:
            return {}
        values = cast(Metric, self.subset_metrics[key]).compute()
        entries = _scalars(prefix, values, self.tasks[name].chance(values))
        if self._stage == "test" and name in self._rows:
            same_rows = cast(Metric, self.same_row_metrics[key]).compute() if key in self.same_row_metrics else {}
            for metric, entry in entries.items():
                same = same_rows.get(metric.removeprefix(f"{prefix}/"))
                entry |= {"rows": num_rows, "all_modalities": None if same is None else float(same)}
        return entries

    def report_items(self, row_id: Callable[[int], str]) -> list[ReportItem]:
        """Return what tasks show in a report, of the last `compute`.

        Args:
            row_id: returns the id of a row of the split.
        """
        return [e for name, values in self._values.items() for e in self.tasks[name].report_items(values, row_id)]

    def attention_shares(self) -> dict[str, Tensor]:
        """Return each modality's share of the attention in validation, if the fusion chooses between modalities."""
        if self._stage != "val" or not self._has_maps:
            return {}
        sums = all_reduce_sum(torch.stack(list(self._attention.values())))
        if sums.sum() == 0:
            return {}
        return {f"attention/{m}": share for m, share in zip(self._attention, sums / sums.sum(), strict=True)}

    def _task_subsets(self) -> list[tuple[str, tuple[str, ...]]]:
        return [
            (name, subset)
            for name, task in self.tasks.items()
            for subset in self.subsets
            if "fused" in task.reads and set(task.needs) <= set(subset)
        ]


class _Evaluator(LightningModule):
    """The test loop of `evaluate`: a Trainer runs it on its devices and in its precision."""

    def __init__(self, model: MultimodalModel, subsets: Sequence[tuple[str, ...]]) -> None:
        super().__init__()
        self.model = model
        self.evaluation = Evaluation(model, subsets)
        self.table: Table = {}

    def configure_model(self) -> None:
        """Do nothing: a model that is to be sharded is so already. Lightning requires the method for sharding."""

    def on_test_epoch_start(self) -> None:
        self.evaluation.start("test", self.device)

    def test_step(self, window: list[Batch], batch_idx: int) -> None:
        self.evaluation.update(self.model.view(window[0]))

    def on_test_epoch_end(self) -> None:
        self.table = self.evaluation.compute()


def evaluate(
    model: MultimodalModel, loader: DataLoader[Any], subsets: Sequence[tuple[str, ...]] = (), *, trainer: Trainer
) -> Table:
    """Return the figures of a model over the batches of a loader. Nothing is logged. All ranks call it together.

    Args:
        model: that is evaluated.
        loader: of a split; see `mmtrain.data.module.DataModule.loader_of`.
        subsets: of modalities; tasks on fused features are also evaluated with these alone.
        trainer: runs it, on its devices and in its precision.
    """
    evaluator = _Evaluator(model, subsets)
    trainer.test(evaluator, dataloaders=loader, verbose=False)
    return evaluator.table


def evaluates_rows(task: Task) -> bool:
    """Whether a labelled row counts if it has one of the task's inputs; a dialogue needs none, a pair needs two."""
    return bool(task.targets) and (task.reads == ("fused",) or bool(task.needs))


def _labelled(task: Task, batch: Batch) -> Tensor:
    """(B,), bool: rows that have all targets of the task."""
    return torch.stack([batch.rows >= 0, *(batch.labelled[target] for target in task.targets)]).all(dim=0)


def _subset_key(task: str, subset: tuple[str, ...]) -> str:
    return f"{task}+{'+'.join(subset)}"


def _scalars(prefix: str, values: Mapping[str, Tensor], chance: Mapping[str, float]) -> Table:
    """The scalars among computed values, with the scores of guessing."""
    return {
        f"{prefix}/{name}": {"value": float(value), "chance": chance.get(name)}
        for name, value in values.items()
        if value.ndim == 0 and not name.endswith("/chance")
    }
