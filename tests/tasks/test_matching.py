"""Matching: which negatives are made, how often, and loss and metrics on them."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import Tensor

from mmtrain.layers.masking import pair_noise
from mmtrain.model import LazyView, MultimodalModel
from mmtrain.tasks.matching import Matching, MatchingPairs, _draw, _next
from mmtrain.types import Batch
from tests.batches import DIM, make_batch, make_model, random_batch

# images 1 and 2 share a caption, image 3 has two; rows 5 and 6 miss a side
SHARED = ([1, 2, 3, 3, 4, 5, 0, 6], [11, 11, 12, 13, 14, 0, 15, 16])


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return make_model(tasks=("contrastive", "matching"))


def make_task(**options: Any) -> Matching:
    parts = {
        "modalities": ["image", "text"],
        "hard_negatives_from": "contrastive",
        "hard_negative_ratio": 0.5,
        "weight": 1.0,
    }
    return Matching(dims={"fused": DIM}, dropout=0.0, negatives="global", **{**parts, **options})


def allowed_in(task: Matching, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (B, B), bool: whose right side, and whose left side, gives a negative."""
    ((_, right, left),) = task._allowed(batch, batch)
    return right, left


def chances_in(task: Matching, view: LazyView) -> list[Tensor]:
    """Return (B, B) each: sampling probability of another row's right side, and of its left side."""
    vectors, result = task._vectors(view), []
    sides = zip((task.needs, task.needs[::-1]), allowed_in(task, view.batch), strict=True)
    for (asks, answers), allowed in sides:
        similarity = None if vectors is None else vectors[0][asks] @ vectors[1][answers].T
        result.append(task._chances(similarity, allowed))
    return result


def known_pairs(batch: Batch) -> set[tuple[int, int]]:
    keys = zip(batch.keys["image"].tolist(), batch.keys["text"].tolist(), strict=True)
    return {(image, text) for image, text in keys if image and text}


def has_wrong(batch: Batch) -> list[bool]:
    """Loops: both sides exist, and so do those of another row that is a negative for both."""
    pairs, size = known_pairs(batch), len(batch)
    images, texts = batch.keys["image"].tolist(), batch.keys["text"].tolist()
    both = (batch.present["image"] & batch.present["text"]).tolist()
    return [
        both[i]
        and any(both[j] and (images[i], texts[j]) not in pairs for j in range(size))
        and any(both[j] and (images[j], texts[i]) not in pairs for j in range(size))
        for i in range(size)
    ]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Record the arguments of `LazyView.paired`."""
    requested: list[dict[str, Tensor]] = []
    paired = LazyView.paired
    monkeypatch.setattr(LazyView, "paired", lambda view, rows: requested.append(rows) or paired(view, rows))
    return requested


@pytest.mark.parametrize("training", [True, False])
def test_a_wrong_pair_is_never_a_right_one(
    model: MultimodalModel, made: list[dict[str, Tensor]], training: bool
) -> None:
    model.train(training)
    for seed in range(20):
        batch = make_batch(*SHARED) if seed < 5 else random_batch(seed, contents=2 + seed % 4)
        made.clear()
        with torch.no_grad():
            predictions = model.view(batch).predictions("matching")
        assert predictions.has_wrong.tolist() == has_wrong(batch)
        assert [list(rows) for rows in made] == ([["text"], ["image"]] if training else [["text"]])
        for rows in made:
            own = torch.arange(len(batch))
            image, text = (batch.keys[m][rows.get(m, own)] for m in ("image", "text"))
            present = batch.present["image"][rows.get("image", own)] & batch.present["text"][rows.get("text", own)]
            for i in predictions.has_wrong.nonzero().flatten().tolist():
                assert present[i] and (int(image[i]), int(text[i])) not in known_pairs(batch)


@pytest.mark.parametrize(
    "sides", [([1, 2, 3], [11, 11, 11]), ([1, 1], [11, 12]), ([1, 0], [11, 12]), ([1], [11]), ([0, 0], [0, 0])]
)
def test_rows_without_a_wrong_partner_are_left_out(model: MultimodalModel, sides: tuple[list[int], list[int]]) -> None:
    batch = make_batch(*sides)
    for training in (True, False):
        task = model.train(training).named_tasks()["matching"]
        total, count = task.loss(model.view(batch).predictions("matching"), batch)
        assert (total.item(), count.item(), task.count(batch).item()) == (0.0, 0, 0)


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0])
    number = 40_000
    noise = pair_noise(torch.arange(number), torch.arange(5), 1)
    drawn = Counter(_draw(weights.expand(number, -1), noise).tolist())
    for column, weight in enumerate(weights.tolist()):
        sigma = math.sqrt(number * weight * (1 - weight))
        assert abs(drawn[column] - number * weight) <= 5 * sigma
    one = torch.tensor([[0.0, 0.0, 1e-30, 0.0]])
    assert _draw(one, torch.tensor([[0.9, 0.9, 1e-9, 0.9]])).tolist() == [2]


@pytest.mark.parametrize("hard_negative_ratio", [0.0, 0.5, 1.0])
def test_chances_mix_the_similarities_of_the_other_task_with_even_ones(
    model: MultimodalModel, hard_negative_ratio: float
) -> None:
    task = make_task(hard_negative_ratio=hard_negative_ratio)
    batch = make_batch(*SHARED)
    view = model.eval().view(batch)
    vectors, scale = view.predictions("contrastive"), model.tasks["contrastive"].scale
    pairs, size, both = known_pairs(batch), len(batch), batch.present["image"] & batch.present["text"]
    for chances, query, gallery in zip(chances_in(task, view), ("image", "text"), ("text", "image"), strict=True):
        for i in range(size):
            wrong = []
            for j in range(size):
                keys = {query: int(batch.keys[query][i]), gallery: int(batch.keys[gallery][j])}
                if both[i] and both[j] and (keys["image"], keys["text"]) not in pairs:
                    wrong.append(j)
            hard = {j: (scale * vectors[query][i] @ vectors[gallery][j]).exp().item() for j in wrong}
            for j in range(size):
                expected = 0.0
                if j in wrong:
                    expected = hard_negative_ratio * hard[j] / sum(hard.values()) + (1 - hard_negative_ratio) / len(
                        wrong
                    )
                assert chances[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_without_the_other_task_all_wrong_partners_are_even() -> None:
    task, batch = make_task(hard_negative_ratio=1.0), make_batch(*SHARED)
    view = make_model(tasks=("matching",)).view(batch)
    right, left = allowed_in(task, batch)
    assert torch.equal(left, right.T)
    for chances, possible in zip(chances_in(task, view), (right, left), strict=True):
        for row, mask in zip(chances, possible, strict=True):
            assert row[mask].tolist() == pytest.approx([1 / max(int(mask.sum()), 1)] * int(mask.sum()))
            assert not row[~mask].any()


@pytest.mark.parametrize("seed", range(5))
def test_in_evaluation_the_partner_is_the_next_allowed_from_half_a_batch_away(seed: int) -> None:
    torch.manual_seed(seed)
    size = 5 + seed
    allowed = torch.rand(size, size) < 0.4
    allowed[0] = False
    for row, result in enumerate(_next(allowed).tolist()):
        candidates = [(row + size // 2 + step) % size for step in range(size)]
        assert result == next((j for j in candidates if allowed[row, j]), row)


def test_evaluation_is_the_same_again_and_after_other_batches(model: MultimodalModel) -> None:
    model.eval()
    batch = make_batch(*SHARED)
    first = model(batch)["matching"]
    model(random_batch(5))
    torch.manual_seed(99)
    second = model(batch)["matching"]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_the_loss_is_the_mean_over_a_row_s_pairs_summed_over_rows() -> None:
    right, wrong = torch.randn(4, 2, requires_grad=True), torch.randn(2, 4, 2, requires_grad=True)
    counted = torch.tensor([True, False, True, True])
    total, count = make_task().loss(MatchingPairs(right, wrong, counted), make_batch([1] * 4, [1] * 4))
    expected = torch.zeros(())
    for row in (0, 2, 3):
        terms = [-right[row].log_softmax(0)[1], *(-wrong[n, row].log_softmax(0)[0] for n in range(2))]
        expected = expected + sum(terms) / 3
    assert count == 3
    torch.testing.assert_close(total, expected)
    for one, other in zip(
        torch.autograd.grad(total, (right, wrong)), torch.autograd.grad(expected, (right, wrong)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_metrics_are_those_of_scikit_learn() -> None:
    task = make_task()
    metrics = task.metrics()
    truth: list[int] = []
    scores: list[float] = []
    for _ in range(3):
        right, wrong, counted = torch.randn(9, 2), torch.randn(1, 9, 2), torch.rand(9) < 0.7
        task.update(metrics, MatchingPairs(right, wrong, counted), make_batch([1] * 9, [1] * 9))
        for logits, is_right in ((right, 1), (wrong[0], 0)):
            scores += logits[counted].softmax(dim=1)[:, 1].tolist()
            truth += [is_right] * int(counted.sum())
    values = metrics.compute()
    assert values["accuracy"].item() == pytest.approx(accuracy_score(truth, [score > 0.5 for score in scores]))
    assert values["auroc"].item() == pytest.approx(roc_auc_score(truth, scores))


def test_rows_that_do_not_count_may_hold_anything() -> None:
    task, batch, counted = make_task(), make_batch([1] * 3, [1] * 3), torch.tensor([True, False, True])
    results = []
    for fill in (0.0, math.nan):
        right, wrong = torch.ones(3, 2), torch.zeros(1, 3, 2)
        right[1], wrong[0, 1] = fill, fill
        metrics = task.metrics()
        task.update(metrics, MatchingPairs(right, wrong, counted), batch)
        results.append((task.loss(MatchingPairs(right, wrong, counted), batch)[0], metrics.compute()["accuracy"]))
    assert results[0] == results[1]


def test_rows_are_looked_at_some_at_a_time(model: MultimodalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.train()
    full = model.view(random_batch(2)).predictions("matching")
    monkeypatch.setattr("mmtrain.tasks.matching.AT_ONCE", 24)
    for one, other in zip(full, model.view(random_batch(2)).predictions("matching"), strict=True):
        torch.testing.assert_close(one, other)


def test_partners_follow_from_the_draws_of_both_rows() -> None:
    """Independent of the order of the rows."""
    task, batch = make_model(tasks=("matching",)).named_tasks()["matching"], random_batch(4, size=10, contents=30)
    assert isinstance(task, Matching)
    model = make_model(tasks=("matching",))
    rights, lefts, wrong = task._drawn(model.view(batch))
    order = torch.randperm(10)
    moved = replace(batch.map(lambda t: t[order]), ids=[batch.ids[i] for i in order])
    result = task._drawn(model.view(moved))
    assert torch.equal(order[result[0]], rights[order]) and torch.equal(order[result[1]], lefts[order])
    assert torch.equal(result[2], wrong[order]) and wrong.any()
    others = task._drawn(model.view(replace(batch, draws=batch.draws + 1)))
    assert not torch.equal(others[0], rights)


@pytest.mark.parametrize("hard_negative_ratio", [-0.1, 1.5])
def test_a_share_beyond_the_whole_is_refused(hard_negative_ratio: float) -> None:
    with pytest.raises(
        ValueError, match=f"hard_negative_ratio = {hard_negative_ratio}; set it to a fraction from 0 to 1"
    ):
        make_task(hard_negative_ratio=hard_negative_ratio)


@pytest.mark.parametrize("modalities", [["image"], ["image", "image"], ["image", "text", "audio"]])
def test_anything_but_two_modalities_is_refused(modalities: list[str]) -> None:
    with pytest.raises(ValueError, match=r"matching needs two different ones, such as \[image, text\]"):
        make_task(modalities=modalities)
