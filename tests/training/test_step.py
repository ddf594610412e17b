"""Losses and Gramian are those of the complete step, however it is split into micro-batches and over ranks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.model import LazyView, MultimodalModel
from mmtrain.training.step import TrainingStep
from mmtrain.types import Batch
from tests.batches import make_model, random_batch
from tests.ranks import on_ranks

TASKS = ("classification", "image_class")
WEIGHTS = (2.0, 0.5)


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    rows = torch.arange(len(batch)).split(list(sizes))
    return [replace(batch.map(lambda t, r=r: t[r]), ids=[batch.ids[i] for i in r.tolist()]) for r in rows]


def make() -> MultimodalModel:
    model = make_model(tasks=TASKS)
    for task, weight in zip(model.named_tasks().values(), WEIGHTS, strict=True):
        task.weight = weight
    return model


def step_of(parts: list[Batch], **changed: Any) -> TrainingStep:
    return TrainingStep(make(), parts, **{"number": 0, "seed": 0} | changed)


def plain(batch: Batch, on: str) -> tuple[Tensor, Tensor]:
    """Mean losses times weights, and the Gramian of their gradients, of the complete batch at once."""
    model = make_model(tasks=TASKS)
    view = model.view(batch)
    losses = [
        weight * total / count
        for weight, (total, count) in zip(
            WEIGHTS, (t.loss(view.predictions(n), batch) for n, t in model.tasks.items()), strict=True
        )
    ]
    shared = [*model.encoders.parameters(), *model.fusion.parameters()]
    if on == "features":
        shared = [view.encoded(m).tokens for m in model.encoders]
    rows = []
    for loss in losses:
        result = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(shared, result, strict=True)]
            )
        )
    jacobian = torch.stack(rows)
    return torch.stack(losses).detach(), jacobian @ jacobian.T


@pytest.mark.parametrize("on", ["parameters", "features"])
@pytest.mark.parametrize("sizes", [[10], [5, 5], [2, 2, 2, 2, 2]])
def test_how_a_step_is_cut_changes_nothing(sizes: list[int], on: str) -> None:
    batch = random_batch(3, size=10)
    step = step_of(cut(batch, sizes))
    losses, gramian = plain(batch, on)
    torch.testing.assert_close(step.losses(), losses, rtol=1e-6, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(step.gramian(on), gramian, rtol=1e-5, atol=1e-9, check_dtype=False)
    scaled = step_of(cut(batch, sizes), loss_scale=1024.0)
    torch.testing.assert_close(scaled.gramian(on), gramian, rtol=1e-5, atol=1e-9, check_dtype=False)


def test_counts_and_forward_passes_add_up_to_the_step() -> None:
    batch = random_batch(3, size=10)
    batch.labelled["label"][:4] = False
    step = step_of(cut(batch, [4, 6]))
    model = make()
    expected = {name: task.count(batch) for name, task in model.named_tasks().items()}
    assert {name: int(count) for name, count in step.counts.items()} == {n: int(c) for n, c in expected.items()}
    losses = torch.stack([torch.stack(step.forward(number).losses) for number in range(len(step))]).sum(dim=0)
    full = torch.stack([total / count for total, count in model.losses(batch).values()])
    torch.testing.assert_close(losses, full, rtol=1e-6, atol=1e-9, check_dtype=False)


def on_rank(mine: int, on: str) -> tuple[Tensor, Tensor]:
    batch = random_batch(3, size=10)
    step = step_of(cut(cut(batch, [4, 6])[mine], [2, 2] if mine == 0 else [3, 3]))
    return step.losses(), step.gramian(on)


@pytest.mark.parametrize("on", ["parameters", "features"])
def test_ranks_see_the_whole_step(on: str) -> None:
    losses, gramian = plain(random_batch(3, size=10), on)
    for result in on_ranks(2, on_rank, on):
        torch.testing.assert_close(result[0], losses, rtol=1e-6, atol=1e-7, check_dtype=False)
        torch.testing.assert_close(result[1], gramian, rtol=1e-5, atol=1e-9, check_dtype=False)


def test_one_micro_batch_is_run_once_and_several_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, runs = random_batch(3, size=10), []
    view = MultimodalModel.view
    monkeypatch.setattr(MultimodalModel, "view", lambda model, batch: (runs.append(len(batch)), view(model, batch))[1])
    # the cache has no task here, but asks for each view once
    for sizes, expected in (([10], [10, 10]), ([5, 5], [5, 5, 5, 5, 5, 5])):
        runs.clear()
        step = step_of(cut(batch, sizes))
        step.losses()
        step.gramian("features") if len(sizes) == 1 else None
        passes = [step.forward(number) for number in range(len(sizes))]
        assert runs == expected
        assert all(run.losses[0].requires_grad for run in passes)
        assert torch.equal(step.after_update().losses(), step.losses())


def test_after_an_update_losses_are_those_of_the_new_weights() -> None:
    step = step_of([random_batch(3, size=10)])
    before = step.losses()
    with torch.no_grad():
        for parameter in step.model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(step.losses(), before)  # the run that is kept for the step
    after = step.after_update().losses()
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, TrainingStep(step.model, step.window, number=0, seed=0).losses(), rtol=0, atol=0)


def test_frozen_encoders_get_no_gradient_and_learn_again_after() -> None:
    model = make()
    image = model.encoders["image"]
    step = TrainingStep(model, [random_batch(3, size=10)], number=0, seed=0, frozen=[image])
    loss = torch.stack(step.forward(0).losses).sum()
    loss.backward()
    assert all(p.grad is None and p.requires_grad for p in image.parameters())
    assert any(p.grad is not None for p in model.encoders["text"].parameters())


def test_batch_norms_see_a_step_once() -> None:
    model = make()
    norm = nn.BatchNorm1d(2, dtype=torch.double)
    model.encoders["image"].register_module("statistics", norm)
    encode = model.encoders["image"].forward
    model.encoders["image"].forward = lambda *inputs: (norm(torch.randn(4, 2, dtype=torch.double)), encode(*inputs))[1]
    step = TrainingStep(model.train(), [random_batch(1), random_batch(2)], number=0, seed=0)
    before = norm.running_mean.clone()
    step.losses()
    assert torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 0
    step.forward(0)
    assert not torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 1


def test_another_place_is_refused() -> None:
    with pytest.raises(ValueError, match="on = heads; set it to parameters or features"):
        step_of([random_batch(1)]).gramian("heads")


def test_a_view_is_one_of_the_model() -> None:
    assert isinstance(step_of([random_batch(1)]).forward(0).view, LazyView)
