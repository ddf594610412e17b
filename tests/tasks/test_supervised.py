"""Invariants of all tasks with a target: counts, masks, splits, gradients, metrics over real ranks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.config.instantiate import construct
from mmtrain.model import MultimodalModel
from mmtrain.tasks.classification import Classification
from mmtrain.tasks.multilabel import MultiLabel
from mmtrain.tasks.ranking import Ranking
from mmtrain.tasks.regression import Regression
from mmtrain.tasks.vqa import VQA
from mmtrain.types import AnswerTarget, Batch, ClassTarget, MultiLabelTarget, NumberTarget
from tests.batches import CLASSES, DIM, assert_same_bits, gradients, make_encoders, make_fusion, random_batch
from tests.ranks import on_ranks

KNOWN = {
    "label": ClassTarget(names=CLASSES, counts=[3, 2, 1]),
    "labels": MultiLabelTarget(names=CLASSES, counts=[3, 2, 1], num_rows=4),
    "number": NumberTarget(names=["0"], mean=[3.0], std=[2.0]),
    "pair": NumberTarget(names=["0", "1"], mean=[3.0, -1.0], std=[2.0, 0.5]),
    "answer": AnswerTarget(names=CLASSES, counts=[3, 2, 1]),
}
BASE: dict[str, Any] = {"known_targets": KNOWN, "weight": 1.0, "dropout": 0.0}
FOCAL = {
    "target": "label",
    "label_smoothing": 0.1,
    "loss": "focal",
    "focal_gamma": 2.0,
    "class_weights": "balanced",
    "mixup": 0.0,
    "cutmix": 0.0,
}
TASKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "focal": (Classification, FOCAL),
    "multilabel": (MultiLabel, {"target": "labels", "positive_weights": "balanced"}),
    "regression": (Regression, {"target": "pair", "loss": "huber", "huber_delta": 0.5}),
    "ranking": (Ranking, {"target": "number", "group_by": "text"}),
    "vqa": (VQA, {"target": "answer", "loss": "binary_cross_entropy"}),
    "vqa_shares": (VQA, {"target": "answer", "loss": "cross_entropy"}),
}
every_task = pytest.mark.parametrize("name", TASKS)
both_reads = pytest.mark.parametrize("reads", ["fused", "image"])


def make(name: str, reads: str = "fused", fusion: str = "concat") -> MultimodalModel:
    """Return a float64 model of one task without dropout, with equal weights each time."""
    kind, options = TASKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoders = make_encoders()
        fused = make_fusion(fusion, dict.fromkeys(encoders, DIM)) if reads == "fused" else None
        task = construct(kind, dims=dict.fromkeys((*encoders, "fused"), DIM), input=reads, **options, **BASE)
        model = MultimodalModel(encoders=encoders, fusion=fused, tasks={name: task})
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.double()


def targeted(seed: int, size: int = 12, first: int = 0) -> Batch:
    """Return rows with random missing or shared contents and random missing targets."""
    batch, generator = random_batch(seed, size, first, contents=3), torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=generator)

    targets = {
        "label": (3 * draw()).long(),
        "labels": (draw(3) < 0.5).float(),
        "number": (6 * draw(1)).round() - 2.0,
        "pair": draw(2),
        "answer": (4 * draw(3) - 1.0).clamp(min=0.0).round() / 3,
    }
    return replace(batch, targets=targets, labelled={name: draw() < 0.7 for name in targets})


def loss_of(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    ((total, count),) = model.losses(batch).values()
    return total, count


def task_of(model: MultimodalModel) -> Any:
    (task,) = model.tasks.values()
    return task


@every_task
@both_reads
def test_count_says_before_the_network_runs_what_the_loss_counts(name: str, reads: str) -> None:
    model, counts = make(name, reads), set()
    for seed in range(20):
        batch = targeted(seed, size=1 + seed % 9)
        total, count = loss_of(model, batch)
        assert task_of(model).count(batch) == count and count.dtype is torch.int64
        assert total.isfinite() and (total > 0) == (count > 0)
        counts.add(int(count))
    assert len(counts) > 2


@every_task
@both_reads
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_what_a_row_lacks_changes_no_bit_of_loss_or_gradient(name: str, reads: str, garbage: float) -> None:
    model, batch = make(name, reads), targeted(0)
    if reads == "image":
        del model.encoders["text"]
    dirty = targeted(0)
    values = dirty.inputs["image"].values
    values[~batch.present["image"]] = garbage
    for key, known in dirty.labelled.items():
        dirty.targets[key][~known] = 77 if key == "label" else garbage
    results = []
    for rows in (batch, dirty):
        model.zero_grad(set_to_none=False)
        total, count = loss_of(model, rows)
        total.backward()
        results.append({"loss": total.detach(), "count": count, **gradients(model)})
    assert_same_bits(*results)


@every_task
@pytest.mark.parametrize("target", ["unlabelled", "nothing to read"])
def test_a_batch_to_learn_nothing_from_gives_every_parameter_a_gradient_of_zero(name: str, target: str) -> None:
    model, batch = make(name), targeted(0)
    if target == "unlabelled":
        batch = replace(batch, labelled={key: known & False for key, known in batch.labelled.items()})
    else:
        batch = batch.only([])
    total, count = loss_of(model, batch)
    assert (total.item(), count.item()) == (0.0, 0)
    total.backward()
    assert not any(gradient.any() for gradient in gradients(model).values())


@every_task
@pytest.mark.parametrize("fusion", ["concat", "late"])
def test_every_parameter_of_a_head_learns(name: str, fusion: str) -> None:
    model = make(name, fusion=fusion)
    loss_of(model, targeted(0))[0].backward()
    for parameter_name, parameter in model.tasks[name].named_parameters():
        # ranking ignores a bias that all rows share
        shared = name == "ranking" and parameter_name == "head.linear.bias"
        assert parameter.grad is not None and (shared or parameter.grad.any()), parameter_name


@every_task
def test_a_loss_is_a_sum_over_whatever_a_batch_is_cut_into(name: str) -> None:
    """Ranking is split between groups: its texts, and the rows without text."""
    model, batch = make(name), targeted(3)
    total, count = loss_of(model, batch)
    groups = batch.keys["text"] if name == "ranking" else torch.arange(len(batch)) % 3
    pieces = [groups == group for group in range(4)]
    cut = [replace(batch, labelled={key: known & part for key, known in batch.labelled.items()}) for part in pieces]
    sums = [loss_of(model, part) for part in cut]
    assert count > 0
    torch.testing.assert_close(sum(part for part, _ in sums), total)
    assert sum(int(part) for _, part in sums) == count


@every_task
def test_what_is_not_finite_never_scores(name: str) -> None:
    model, batch = make(name), targeted(0)
    task = task_of(model)
    predictions = model(batch)[name]
    for garbage in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match="not finite"):
            task.update(task.metrics(), predictions.masked_fill(predictions == predictions, garbage), batch)


@every_task
def test_chance_is_of_what_is_scored_and_rows_speak_where_there_is_something_to_read(name: str) -> None:
    model, batch = make(name), targeted(0)
    task, predictions = task_of(model), model(batch)[name]
    metrics = task.metrics()
    task.update(metrics, predictions, batch)
    values = metrics.compute()
    assert values[task.monitor].isfinite() and task.monitor in task.chance(values)
    assert set(task.chance(values)) <= {key for key, value in values.items() if value.ndim == 0}
    assert all(value.isfinite().all() for value in values.values())
    readable = batch.present["image"] | batch.present["text"]
    assert [bool(row) for row in task.rows(predictions, batch)] == readable.tolist()


def test_heads_for_other_widths_give_what_the_task_reads() -> None:
    for name in TASKS:
        model, batch = make(name), targeted(0)
        view = model.view(batch)
        evaluated = task_of(model).new_head(DIM).double()(view.encoded("image"))
        assert len(evaluated) == len(batch) and evaluated.numel() == model(batch)[name].numel()


def of_split(name: str, batches: list[int]) -> dict[str, Tensor]:
    model = make(name)
    task = task_of(model)
    metrics = task.metrics()
    for seed in batches:
        batch = targeted(seed)
        task.update(metrics, model(batch)[name].detach(), batch)
    return metrics.compute()


def share_of_rank(rank: int, world_size: int, name: str) -> dict[str, Tensor]:
    """The last rank gets no batch."""
    return of_split(name, [] if rank == world_size - 1 else list(range(rank, 5, world_size - 1)))


@every_task
def test_real_ranks_give_the_values_of_one(name: str) -> None:
    expected = of_split(name, list(range(5)))
    for values in on_ranks(3, share_of_rank, 3, name):
        assert values.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(values[key], value, rtol=1e-6, atol=1e-6, check_dtype=False)
