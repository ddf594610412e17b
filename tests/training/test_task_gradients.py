"""A look at a step: losses and inner products of gradients are those of the whole step, however it is cut."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.training.task_gradients import Run, StepLook
from mmtrain.types import Batch
from tests.batches import make_model, random_batch
from tests.ranks import on_ranks

TASKS = ("classification", "image_class")
SCALES = (2.0, 0.5)


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    rows = torch.arange(len(batch)).split(list(sizes))
    return [replace(batch.map(lambda t, r=r: t[r]), ids=[batch.ids[i] for i in r.tolist()]) for r in rows]


def look_at(parts: list[Batch], counts: dict[str, Tensor], **changed: Any) -> StepLook:
    model = make_model(tasks=TASKS)

    def run(number: int) -> Run:
        view = model.view(parts[number])
        return Run([t.loss(view.predictions(n), parts[number])[0] / counts[n] for n, t in model.tasks.items()], view)

    options: dict[str, Any] = {"model": model, "loss_scale": 1.0, "keeps": True, "seed": 0, "run": run} | changed
    return StepLook(names=list(TASKS), scales=SCALES, number=len(parts), **options)


def counts_of(batch: Batch) -> dict[str, Tensor]:
    return {name: task.count(batch) for name, task in make_model(tasks=TASKS).named_tasks().items()}


def plain(batch: Batch, on: str) -> tuple[Tensor, Tensor]:
    """Mean losses times scales, and the Gramian of their gradients, of the whole batch at once."""
    model = make_model(tasks=TASKS)
    view = model.view(batch)
    losses = [
        scale * total / count
        for scale, (total, count) in zip(
            SCALES, (t.loss(view.predictions(n), batch) for n, t in model.tasks.items()), strict=True
        )
    ]
    shared = [*model.encoders.parameters(), *model.fusion.parameters()]
    if on == "features":
        shared = [view.encoded(m).tokens for m in model.encoders]
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(shared, found, strict=True)])
        )
    jacobian = torch.stack(rows)
    return torch.stack(losses).detach(), jacobian @ jacobian.T


@pytest.mark.parametrize("on", ["parameters", "features"])
@pytest.mark.parametrize("sizes", [[10], [5, 5], [2, 2, 2, 2, 2]])
def test_how_a_step_is_cut_changes_nothing(sizes: list[int], on: str) -> None:
    batch = random_batch(3, size=10)
    look = look_at(cut(batch, sizes), counts_of(batch))
    losses, gramian = plain(batch, on)
    torch.testing.assert_close(look.losses(), losses, rtol=1e-6, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(look.gramian(on), gramian, rtol=1e-5, atol=1e-9, check_dtype=False)
    scaled = look_at(cut(batch, sizes), counts_of(batch), loss_scale=1024.0)
    torch.testing.assert_close(scaled.gramian(on), gramian, rtol=1e-5, atol=1e-9, check_dtype=False)


def on_rank(mine: int, on: str) -> tuple[Tensor, Tensor]:
    batch = random_batch(3, size=10)
    look = look_at(cut(cut(batch, [4, 6])[mine], [2, 2] if mine == 0 else [3, 3]), counts_of(batch))
    return look.losses(), look.gramian(on)


@pytest.mark.parametrize("on", ["parameters", "features"])
def test_ranks_see_the_whole_step(on: str) -> None:
    losses, gramian = plain(random_batch(3, size=10), on)
    for found in on_ranks(2, on_rank, on):
        torch.testing.assert_close(found[0], losses, rtol=1e-6, atol=1e-7, check_dtype=False)
        torch.testing.assert_close(found[1], gramian, rtol=1e-5, atol=1e-9, check_dtype=False)


def test_one_micro_batch_is_run_once_and_several_once_more() -> None:
    batch = random_batch(3, size=10)
    for sizes, expected in (([10], 1), ([5, 5], 4)):
        runs: list[int] = []
        parts = cut(batch, sizes)
        counted = look_at(parts, counts_of(batch))
        inner = counted._run
        counted._run = lambda number, inner=inner, runs=runs: (runs.append(number), inner(number))[1]
        counted.losses()
        counted.gramian("features") if len(sizes) == 1 else None
        taken = [counted.take(number) for number in range(len(parts))]
        assert len(runs) == expected
        assert all(run.losses[0].requires_grad for run in taken)
        again = counted.again()
        assert torch.equal(again.losses(), counted.losses())


def test_batch_norms_see_a_step_once() -> None:
    norm = nn.BatchNorm1d(2)
    model: Any = nn.Module()
    model.norm, model.encoders, model.fusion = norm, nn.ModuleDict(), None
    look = StepLook(
        names=["a"],
        scales=[1.0],
        seed=0,
        number=2,
        run=lambda number: Run([norm(torch.randn(4, 2)).sum()], None),
        model=model,
        loss_scale=1.0,
        keeps=True,
    )
    before = norm.running_mean.clone()
    look.losses()
    assert torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 0
    look.take(0)
    assert not torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 1


def test_another_place_is_refused() -> None:
    with pytest.raises(ValueError, match="on = heads; set it to parameters or features"):
        look_at([random_batch(1)], counts_of(random_batch(1))).gramian("heads")


@pytest.mark.parametrize("on", ["parameters", "features"])
@pytest.mark.parametrize("scale", [1.0, 1e-24, 1e24])
def test_products_of_gradients_are_taken_in_float64(on: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of gradients of 1e-24 or 1e24 are no float32 numbers, nor is the angle between nearly parallel ones."""
    monkeypatch.setattr("mmtrain.training.task_gradients.COLUMNS", 64)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1000, generator=generator)
    rows[1] = rows[0] + 1e-4 * rows[1]
    rows = rows * scale
    encoder = nn.Linear(1000, 1, bias=False)
    tokens = encoder.weight * 1.0
    view: Any = SimpleNamespace(encoded=lambda name: SimpleNamespace(tokens=tokens))
    model: Any = nn.Module()
    model.encoders, model.fusion = nn.ModuleDict({"image": encoder}), None
    look = StepLook(
        names=["a", "b"],
        scales=[1.0, 1.0],
        seed=0,
        number=1,
        run=lambda number: Run([(row * tokens).sum() for row in rows], view),
        model=model,
        loss_scale=1.0,
        keeps=True,
    )
    torch.testing.assert_close(look.gramian(on), rows.double() @ rows.double().T, rtol=1e-12, atol=0)
