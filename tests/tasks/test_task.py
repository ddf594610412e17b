"""Invariants of every task."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.model import MultimodalModel
from mmtrain.types import Batch, Confusion, Padded, Retrieval
from tests.batches import CLASSES, assert_same_bits, gradients, make_batch, make_model, random_batch

MASKED = ("masked_text", "masked_fusion", "masked_image")
TASKS = ("contrastive", "classification", "image_class", "matching", *MASKED)
FUSED = ("classification", "matching", "masked_fusion")
ALONE = {"image_class": "text", "masked_image": "text", "masked_text": "image"}  # modalities that are not read
every_task = pytest.mark.parametrize("name", TASKS)
both_modes = pytest.mark.parametrize("training", [True, False])


@pytest.fixture(scope="module")
def whole() -> MultimodalModel:
    return make_model(tasks=TASKS)


def loss_of(model: MultimodalModel, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
    return model.named_tasks()[name].loss(model.view(batch).predictions(name), batch)


@every_task
@both_modes
def test_count_says_before_the_network_runs_what_the_loss_counts(
    whole: MultimodalModel, name: str, training: bool
) -> None:
    task = whole.train(training).named_tasks()[name]
    counts = set()
    for seed in range(25):
        batch = random_batch(seed, size=2 + seed % 7, contents=2 + seed % 5)
        total, count = loss_of(whole, name, batch)
        assert task.count(batch) == count
        assert total.isfinite() and (total > 0) == (count > 0)
        counts.add(int(count))
    assert len(counts) > 2


@every_task
@both_modes
@pytest.mark.parametrize("rows", ["filler", "one side each", "no row"])
def test_a_batch_to_learn_nothing_from_gives_zeros_with_finite_gradients(
    whole: MultimodalModel, name: str, training: bool, rows: str
) -> None:
    if rows == "one side each" and name in ("masked_text", "masked_image"):
        pytest.skip("one side is enough")
    batch = make_batch([0, 0], [0, 0]) if rows == "filler" else make_batch([1, 0, -2], [0, 1, 2])
    if rows == "no row":
        batch = make_batch([0], [0])
    total, count = loss_of(whole.train(training), name, batch)
    assert (total.item(), count.item()) == (0.0, 0)
    whole.zero_grad()
    total.backward()
    for parameter in whole.tasks[name].parameters():
        if name != "matching" or parameter.grad is not None:
            assert not parameter.grad.any()


def dirty(batch: Batch, garbage: float) -> Batch:
    """Return the same batch with garbage wherever a mask is False."""
    image, text = batch.inputs["image"].values, batch.inputs["text"]
    assert text.mask is not None
    absent = ~batch.present["image"][:, None, None, None]
    return replace(
        batch,
        inputs={
            "image": Padded(image.masked_fill(absent, garbage), None),
            "text": Padded(text.values.masked_fill(~text.mask, 10**9), text.mask),
        },
        targets={"label": batch.targets["label"].masked_fill(~batch.labelled["label"], 77)},
    )


@every_task
@both_modes
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
@pytest.mark.parametrize("fusion", ["concat", "cross_attn"])
def test_what_a_row_lacks_changes_no_bit_of_loss_or_gradient(
    name: str, training: bool, garbage: float, fusion: str
) -> None:
    results = []
    tasks = ("contrastive", "matching") if name == "matching" else (name,)
    model = make_model(tasks=tasks, fusion=fusion if name in FUSED else None).train(training)
    if name in ALONE:
        del model.encoders[ALONE[name]]
    for seed in range(3):
        batch = random_batch(seed)
        for rows in (batch, dirty(batch, garbage)):
            model.zero_grad(set_to_none=False)
            total, _ = loss_of(model, name, rows)
            total.backward()
            if name == "matching":  # it uses the similarities without gradient
                loss_of(model, "contrastive", rows)[0].backward()
            results.append({"loss": total.detach(), **gradients(model)})
        assert_same_bits(*results[-2:])


@every_task
@both_modes
def test_every_parameter_of_a_head_learns(name: str, training: bool) -> None:
    model = make_model(tasks=("contrastive", name) if name == "matching" else (name,)).train(training)
    loss_of(model, name, random_batch(0, size=12))[0].backward()
    for parameter_name, parameter in model.tasks[name].named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), parameter_name


@every_task
def test_metrics_have_what_is_monitored_and_chance_names_what_is_there(whole: MultimodalModel, name: str) -> None:
    task = whole.eval().named_tasks()[name]
    metric: Any = task.metrics()
    for seed in range(3):
        batch = random_batch(seed, first=8 * seed)
        task.update(metric, whole.view(batch).predictions(name), batch)
    values = metric.compute()
    assert (-math.inf if task.monitor == "r2" else 0.0) <= float(values[task.monitor]) <= 1.0
    chance = task.chance(values)
    assert task.monitor in chance
    for key, value in chance.items():
        assert 0.0 <= value <= (math.inf if "rank" in key else 1.0) and values[key].ndim == 0
    for exhibit in task.report_items(values, str):
        assert isinstance(exhibit, Retrieval | Confusion)


@every_task
def test_what_is_not_finite_never_scores(whole: MultimodalModel, name: str) -> None:
    model = make_model(tasks=("contrastive", name) if name == "matching" else (name,)).eval()
    for parameter in model.tasks[name].parameters():
        nn.init.constant_(parameter, math.nan)
    task, batch = model.named_tasks()[name], make_batch([1, 2, 3], [1, 2, 3], [0, 1, 2])
    with pytest.raises(FloatingPointError, match="not finite"):
        task.update(task.metrics(), model.view(batch).predictions(name), batch)


@every_task
def test_rows_say_something_of_those_that_have_what_is_needed(whole: MultimodalModel, name: str) -> None:
    if name in MASKED:
        pytest.skip("says nothing of a row")
    task, batch = whole.eval().named_tasks()[name], random_batch(1)
    rows = task.rows(whole.view(batch).predictions(name), batch)
    assert len(rows) == len(batch)
    present = torch.ones(len(batch), dtype=torch.bool)
    for modality in task.needs:
        present &= batch.present[modality]
    if not task.needs:
        present = batch.present["image"] | batch.present["text"]
    assert [bool(row) for row in rows] == present.tolist()
    for row in filter(None, rows):
        label = row.get("label", CLASSES[0])
        assert label in CLASSES
        assert all(isinstance(value, float | str) for value in row.values())


@every_task
def test_a_loss_is_a_sum(whole: MultimodalModel, name: str) -> None:
    """Tasks with independent rows may be split into batches; tasks that compare rows may not."""
    if name in ("contrastive", "matching"):
        pytest.skip("compares rows")
    if name in MASKED:
        pytest.skip("counts rows without a label, too")
    batch = random_batch(2)
    parts = [random_batch(2) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 3), slice(3, 8)), strict=True):
        keep = torch.zeros(8, dtype=torch.bool)
        keep[rows] = True
        part.labelled["label"] &= keep
    sums = [loss_of(whole, name, part) for part in parts]
    total, count = loss_of(whole, name, batch)
    torch.testing.assert_close(sums[0][0] + sums[1][0], total)
    assert sums[0][1] + sums[1][1] == count
