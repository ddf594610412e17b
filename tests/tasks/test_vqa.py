"""VQA: values of answers, which rows count, chance, errors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.config.instantiate import construct
from mmtrain.tasks.vqa import VQA
from mmtrain.types import AnswerTarget, Batch, ClassTarget
from tests.batches import CLASSES, DIM, make_batch

KNOWN = AnswerTarget(names=["yes", "no", "2", "red"], counts=[9, 5, 3, 1])
# values per row: four of ten agree on two answers; one; two; none selectable; a single answer; no answer
WORTH = torch.tensor([[1.0, 1.0, 0, 0], [0.3, 0, 0.6, 0], [0, 0, 0, 0], [0, 0, 0, 1.0], [math.nan] * 4])
LABELLED = torch.tensor([True, True, True, True, False])
CHOSEN = [1, 0, 0, 3, 0]


def make_task(**options: Any) -> VQA:
    parts = {"target": "answer", "input": "fused", "weight": 1.0, "dropout": 0.0, "loss": "binary_cross_entropy"}
    known = {"answer": KNOWN, "label": ClassTarget(names=CLASSES, counts=[1, 1, 1])}
    known |= {"one": AnswerTarget(names=["yes"], counts=[3])}
    return construct(VQA, dims={"fused": DIM, "image": DIM}, known_targets=known, **(parts | options))


def make(image: list[int] | None = None) -> tuple[Tensor, Batch]:
    torch.manual_seed(0)
    batch = make_batch(image or [1] * 5, [0] * 5)
    batch.targets["answer"], batch.labelled["answer"] = WORTH.clone(), LABELLED
    logits = torch.randn(5, 4)
    logits[torch.arange(5), CHOSEN] = 4.0
    logits[4] = math.nan
    return logits, batch


def test_a_chosen_answer_scores_what_it_is_worth() -> None:
    task, (logits, batch) = make_task(), make()
    metrics = task.metrics()
    task.update(metrics, logits[:2], rows(batch, slice(2)))
    task.update(metrics, logits[2:], rows(batch, slice(2, 5)))
    values = metrics.compute()
    assert values["vqa_accuracy"].item() == pytest.approx((1 + 0.3 + 0 + 1) / 4)
    assert values["exact_match"].item() == pytest.approx((1 + 0 + 0 + 1) / 4)
    chance = task.chance(values)  # always yes
    assert chance["vqa_accuracy"] == pytest.approx((1 + 0.3 + 0 + 0) / 4)
    assert chance["exact_match"] == pytest.approx(1 / 4)
    assert set(chance) <= set(values)


def rows(batch: Batch, part: slice) -> Batch:
    size = len(batch.rows[part])
    out = make_batch([1] * size, [0] * size)
    out.targets["answer"], out.labelled["answer"] = batch.targets["answer"][part], batch.labelled["answer"][part]
    return out


def test_binary_cross_entropy_is_a_sum_over_answers_and_a_mean_over_rows() -> None:
    task, (logits, batch) = make_task(), make(image=[1, 0, 1, 1, 1])
    total, count = task.loss(logits, batch)
    kept = [0, 2, 3]
    assert count == task.count(batch) == 3
    torch.testing.assert_close(total, F.binary_cross_entropy_with_logits(logits[kept], WORTH[kept], reduction="sum"))


def test_cross_entropy_is_against_shares_of_the_worth_where_there_is_any() -> None:
    task, (logits, batch) = make_task(loss="cross_entropy"), make()
    total, count = task.loss(logits, batch)
    assert count == task.count(batch) == 3
    log_p = logits.log_softmax(dim=1)
    expected = -(log_p[0, 0] + log_p[0, 1]) / 2 - (log_p[1, 0] + 2 * log_p[1, 2]) / 3 - log_p[3, 3]
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(("loss", "count"), [("binary_cross_entropy", 4), ("cross_entropy", 3)])
def test_confidence_is_the_probability_of_answers_by_their_worth(loss: str, count: int) -> None:
    task, (logits, batch) = make_task(loss=loss), make()
    total, counted = task.confidence(logits, batch)
    p = logits.sigmoid() if loss == "binary_cross_entropy" else logits.softmax(dim=1)
    torch.testing.assert_close(total, (p[0, 0] + p[0, 1]) / 2 + (p[1, 0] + 2 * p[1, 2]) / 3 + p[3, 3])
    assert counted == count


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy"])
def test_what_it_says_of_a_row_is_the_likeliest_answer(loss: str) -> None:
    logits, batch = make(image=[1, 0, 1, 1, 1])
    rows = make_task(loss=loss).rows(logits, batch)
    p = logits.sigmoid() if loss == "binary_cross_entropy" else logits.softmax(dim=1)
    assert rows[0] == {"answer": "no", "probability": pytest.approx(p[0, 1].item(), abs=1e-6)}
    assert rows[1] == {} and rows[3]["answer"] == "red"


def test_the_most_frequent_answer_need_not_come_first() -> None:
    known = {"answer": AnswerTarget(names=["a", "b"], counts=[1, 2])}
    parts = {"target": "answer", "input": "fused", "weight": 1.0, "dropout": 0.0, "loss": "cross_entropy"}
    assert construct(VQA, dims={"fused": DIM}, known_targets=known, **parts).most_frequent == 1


class ByClass:
    modalities = ("image", "text")
    combine_method = "product"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "reply"}, "target = reply, but there is answer, label, one"),
        ({"target": "label"}, "target = label has no answers; .*target@data.targets.label=answer"),
        ({"target": "one"}, "target = one has only the answer yes in training"),
        ({"input": "audio"}, "input = audio, but there is fused, image"),
        ({"loss": "mse"}, "loss = mse, but there is binary_cross_entropy, cross_entropy"),
        ({"decides": ByClass()}, "set it to cross_entropy, or fusion.combine to mean_logits"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_decisions_by_class_become_an_answer() -> None:
    decides = ByClass()
    task = make_task(loss="cross_entropy", decides=decides)
    assert sorted(task.head.heads) == ["image", "text"]
