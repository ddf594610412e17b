"""The gradient of a step that is cut into micro-batches is that of all its rows at once, dropout and all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.balance.famo import FAMO
from mmtrain.data.order import mix
from mmtrain.model import MultimodalModel
from mmtrain.tasks.contrastive import Contrastive
from mmtrain.training.global_batch import MicroBatch, attach_global_batch, concatenate_batches
from mmtrain.training.grad_cache import GradientCache
from mmtrain.training.lit_module import LitModel
from mmtrain.types import Batch
from tests.batches import gradients, make_batch, make_model, random_batch
from tests.steps import loader, make_lit, make_trainer
from tests.training.test_lit_module import cut

TASKS = ("classification", "contrastive", "matching", "masked_text")
BATCH = random_batch(3, size=12)


def dropping(model: MultimodalModel, rate: float = 0.3) -> MultimodalModel:
    """The same model with dropout everywhere that it can have some."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    return model


def make(tasks: Sequence[str] = TASKS, **changed: Any) -> LitModel:
    return make_lit(model=dropping(make_model(tasks=tasks)), gradient_cache=True, **changed)


def step(lit: LitModel, window: list[Batch], folder: Path) -> dict[str, Tensor]:
    """The gradients of one step."""
    make_trainer(folder, max_epochs=1).fit(lit, train_dataloaders=loader([window]))
    return gradients(lit.model)


def seed_of(lit: LitModel, number: int) -> None:
    """Of a micro-batch of the first step."""
    torch.manual_seed(mix(lit.seed, 0, 0, *([number] if number else [])) >> 1)


def at_once(lit: LitModel, window: list[Batch]) -> dict[str, Tensor]:
    """The same with every graph alive: vectors of all micro-batches side by side in one loss."""
    views, sums = [], dict.fromkeys(lit.tasks, torch.zeros((), dtype=torch.double))
    window = attach_global_batch(window, lit.tasks)
    counts = {n: sum(int(t.count(b)) for b in window) for n, t in lit.tasks.items()}
    told = []
    for number, batch in enumerate(window):
        seed_of(lit, number)
        told.append(lit.model.view(batch).predictions("contrastive"))
    assert isinstance(window[0].step, MicroBatch)
    window[0].step.global_batch.fill("contrastive", told)
    for number, batch in enumerate(window):
        seed_of(lit, number)
        view = lit.model.view(batch)
        if len(window) > 1:
            view.predictions("contrastive")
        views.append(view)
        for name, task in lit.tasks.items():
            if name != "contrastive":
                sums[name] = sums[name] + task.loss(view.predictions(name), batch)[0]
    told = [view.predictions("contrastive") for view in views]
    vectors = {m: torch.cat([said[m] for said in told]) for m in told[0]}
    sums["contrastive"] = lit.tasks["contrastive"].loss(vectors, concatenate_batches(window))[0]
    torch.stack([t.weight * sums[n] / max(1, counts[n]) for n, t in lit.tasks.items()]).sum().backward()
    return gradients(lit.model)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and any(g.any() for g in found.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("sizes", [[4, 4, 4], [7, 5], [12], [2] * 6])
@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_gradients_are_those_of_all_graphs_at_once(loss: str, sizes: list[int], tmp_path: Path) -> None:
    models = []
    for _ in range(2):
        lit = make()
        contrastive = lit.model.tasks["contrastive"]
        assert isinstance(contrastive, Contrastive)
        if loss == "sigmoid":
            contrastive.bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.double))
        models.append(lit)
    window = cut(BATCH, sizes)
    expected = at_once(models[1].train(), window)
    assert_equal(step(models[0], window, tmp_path), expected)
    assert expected["tasks.contrastive.log_scale"].any()


@pytest.mark.parametrize("sizes", [[4, 4, 4], [7, 5], [1] * 12])
def test_without_draws_the_cutting_changes_nothing(sizes: list[int], tmp_path: Path) -> None:
    lits = [make_lit(model=make_model(tasks=(*TASKS, "masked_image")), gradient_cache=True) for _ in range(2)]
    full = step(lits[1], [BATCH], tmp_path)
    assert_equal(step(lits[0], cut(BATCH, sizes), tmp_path), full)


def test_without_the_cache_micro_batches_are_compared_by_themselves(tmp_path: Path) -> None:
    tasks = ("contrastive",)
    full = step(make_lit(model=make_model(tasks=tasks, fusion=None)), [BATCH], tmp_path)
    parts = step(make_lit(model=make_model(tasks=tasks, fusion=None)), cut(BATCH, [4, 4, 4]), tmp_path)
    assert not torch.allclose(parts["tasks.contrastive.log_scale"], full["tasks.contrastive.log_scale"], atol=1e-6)


def test_what_a_row_lacks_may_be_anything(tmp_path: Path) -> None:
    batch = make_batch([1, 2, 0, 3], [1, 2, 3, 0], [0, 1, 2, 0])
    lits = [make_lit(model=make_model(tasks=("contrastive",), fusion=None), gradient_cache=True) for _ in range(2)]
    expected = step(lits[0], cut(batch, [2, 2]), tmp_path)
    for modality, present in batch.present.items():
        if batch.inputs[modality].values.is_floating_point():
            batch.inputs[modality].values[~present] = float("nan")
    assert_equal(step(lits[1], cut(batch, [2, 2]), tmp_path), expected)


def test_parts_add_up_to_the_loss_of_the_step() -> None:
    lit = make(("contrastive",)).train()
    task = lit.model.tasks["contrastive"]
    assert isinstance(task, Contrastive)
    window = cut(BATCH, [4, 4, 4])
    cache = GradientCache({"contrastive": task}, window)

    def view(number: int) -> Any:
        torch.manual_seed(number)
        return lit.model.view(window[number])

    cache.fill(view)
    parts = [cache.loss("contrastive", n, view(n).predictions("contrastive")) for n in range(3)]
    predictions = [view(n).predictions("contrastive") for n in range(3)]
    full = task.loss(
        {m: torch.cat([said[m] for said in predictions]) for m in predictions[0]}, concatenate_batches(window)
    )[0]
    torch.testing.assert_close(torch.stack(parts).sum().float(), full.float())


def test_the_queue_takes_a_step_once(tmp_path: Path) -> None:
    """Also when the balance reads the step again after it was taken."""
    lit = make(
        ("contrastive", "classification"),
        balance=FAMO(tasks=["contrastive", "classification"], lr=0.1, weight_decay=0.0, floor=1e-8),
    )
    task = lit.model.tasks["contrastive"]
    assert isinstance(task, Contrastive)
    pushed: list[int] = []
    task.queue = partial_queue(task, pushed)
    step(lit, cut(BATCH, [4, 4, 4]), tmp_path)
    assert pushed == [12]


def partial_queue(task: Contrastive, pushed: list[int]) -> Any:
    from mmtrain.layers.queue import Queue

    class Noting(Queue):
        def push(self, vectors: dict[str, Tensor], *more: Any) -> None:
            pushed.append(len(next(iter(vectors.values()))))
            super().push(vectors, *more)

    return Noting(size=6, modalities=task.reads, dim=task.queue.vectors[task.reads[0]].shape[1])
