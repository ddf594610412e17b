"""Ranking: groups and pairs, which rows count, errors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.config.instantiate import construct
from mmtrain.tasks.ranking import Ranking
from mmtrain.types import Batch, ClassTarget, NumberTarget
from tests.batches import CLASSES, DIM, make_batch

KNOWN = NumberTarget(names=["0"], mean=[3.0], std=[2.0])
TWO = NumberTarget(names=["0", "1"], mean=[0.0, 0.0], std=[1.0, 1.0])


def make_task(known: NumberTarget = KNOWN, **options: Any) -> Ranking:
    parts = {"target": "number", "group_by": "text", "input": "fused", "weight": 1.0, "dropout": 0.0, **options}
    targets = {"number": known, "label": ClassTarget(names=CLASSES, counts=[1, 1, 1])}
    return construct(Ranking, dims={"fused": DIM, "image": DIM, "text": DIM}, known_targets=targets, **parts)


def make() -> tuple[Tensor, Batch]:
    """Images of texts 1 and 2; the fourth row has only the key of its text, the fifth no text, the last no score."""
    batch = make_batch([1, 2, 3, 4, 5, 6, 7], [1, 2, 1, -1, 0, 2, 1])
    batch.targets["number"] = torch.tensor([0.5, 1.0, -1.0, 0.5, 9.0, -1.0, 9.0]).unsqueeze(1)
    batch.labelled["number"] = torch.tensor([True] * 6 + [False])
    return torch.tensor([1.0, 0.0, 2.0, 3.0, 9.0, -1.0, 9.0]), batch


PAIRS = [(0, 2), (3, 2), (1, 5)]  # the first of each ranks above the second


@pytest.mark.parametrize("garbage", [0.0, math.nan, 1e30])
def test_pairs_are_of_rows_that_share_a_content(garbage: float) -> None:
    task, (scores, batch) = make_task(), make()
    scores[6], batch.targets["number"][6] = garbage, garbage
    total, count = task.loss(scores, batch)
    assert count == task.count(batch) == len(PAIRS)
    expected = sum(math.log1p(math.exp(float(scores[j] - scores[i]))) for i, j in PAIRS)
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_a_row_without_anything_to_read_is_in_no_pair() -> None:
    scores, batch = make()
    without = batch.only(["text"])
    assert make_task().count(without) == 2  # the fourth row has no text content
    assert make_task(input="image").count(without) == 0
    assert make_task(input="image").loss(scores, without)[0] == 0.0


def test_scores_are_of_the_whole_split() -> None:
    task, (scores, batch) = make_task(), make()
    metrics = task.metrics()
    task.update(metrics, scores, batch)
    task.update(metrics, scores + 0.5, batch)
    values = metrics.compute()
    pairs = [(a + i, b + j) for i, j in PAIRS for a in (0, 7) for b in (0, 7)]
    both = torch.cat([scores, scores + 0.5])
    right = sum(1.0 if both[i] > both[j] else 0.5 if both[i] == both[j] else 0.0 for i, j in pairs)
    assert values["pairwise_accuracy"].item() == pytest.approx(right / len(pairs))
    assert task.chance(values)["pairwise_accuracy"] == 0.5
    assert task.chance(values)["ndcg@10"] == pytest.approx(float(values["ndcg@10/chance"]))


def test_what_it_says_of_a_row_is_its_score() -> None:
    scores, batch = make()
    rows = make_task(input="text").rows(scores, batch)
    assert rows[:5] == [{"score": 1.0}, {"score": 0.0}, {"score": 2.0}, {}, {}]


class ByClass:
    modalities = ("image", "text")
    combine_method = "product"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "stars"}, "target = stars, but there is number, label"),
        ({"target": "label"}, "target = label has no numbers, but ranking needs one"),
        ({"known": TWO}, "target = number has 2 numbers, but ranking needs one"),
        ({"input": "audio"}, "input = audio, but there is fused, image, text"),
        ({"group_by": "fused"}, "group_by = fused, but there is image, text"),
        ({"decides": ByClass()}, "fusion.combine = product .* set it to mean_logits"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)
