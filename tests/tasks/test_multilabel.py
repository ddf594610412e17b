"""Multi-label: metrics against scikit-learn, weights, which rows count, errors."""

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch import Tensor
from torch.nn import functional as F

from mmtrain.config.instantiate import construct
from mmtrain.tasks.multilabel import MultiLabel
from mmtrain.types import Batch, ClassTarget, MultiLabelTarget
from tests.batches import CLASSES, DIM, make_batch

SIZE = 40
KNOWN = MultiLabelTarget(names=CLASSES, counts=[6, 2, 10], num_rows=10)


def make_task(**options: Any) -> MultiLabel:
    parts = {"target": "labels", "input": "fused", "weight": 1.0, "dropout": 0.0, "positive_weights": None, **options}
    known = {"labels": KNOWN, "label": ClassTarget(names=CLASSES, counts=[1, 1, 1])}
    return construct(MultiLabel, dims={"fused": DIM, "image": DIM}, known_targets=known, **parts)


def rows_of(truth: Tensor, labelled: Tensor, image: list[int] | None = None) -> Batch:
    """Return rows with a text, and with an image unless `image` excludes it."""
    size = len(truth)
    batch = make_batch(image or [1] * size, [1] * size if image is None else [0] * size)
    batch.targets["labels"], batch.labelled["labels"] = truth, labelled
    return batch


def make(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return 2 * torch.randn(SIZE, 3), (torch.rand(SIZE, 3) < 0.4).float(), torch.rand(SIZE) < 0.8


def scored(logits: Tensor, truth: Tensor, labelled: Tensor, batch: int = 7) -> tuple[MultiLabel, dict[str, Tensor]]:
    task = make_task()
    metrics = task.metrics()
    for start in range(0, SIZE, batch):
        part = slice(start, start + batch)
        task.update(metrics, logits[part], rows_of(truth[part], labelled[part]))
    return task, metrics.compute()


def test_metrics_are_those_of_scikit_learn() -> None:
    logits, truth, labelled = make()
    _, values = scored(logits, truth, labelled)
    right, probability = truth[labelled].int(), logits[labelled].sigmoid()
    said = (probability > 0.5).int()
    assert values["micro_f1"].item() == pytest.approx(f1_score(right, said, average="micro"))
    assert values["macro_f1"].item() == pytest.approx(f1_score(right, said, average="macro"))
    assert values["exact_match"].item() == pytest.approx(accuracy_score(right, said))
    precision = average_precision_score(right, probability, average="macro")
    assert values["mean_average_precision"].item() == pytest.approx(precision, abs=0.01)


def test_chance_is_saying_what_most_of_training_has() -> None:
    """Classes a and c of three occur in 6 and 10 of 10 rows."""
    logits, truth, labelled = make()
    task, values = scored(logits, truth, labelled)
    right = truth[labelled].int()
    said = torch.tensor([1, 0, 1]).expand_as(right)
    chance = task.chance(values)
    assert chance["micro_f1"] == pytest.approx(f1_score(right, said, average="micro"))
    assert chance["macro_f1"] == pytest.approx(f1_score(right, said, average="macro", zero_division=0))
    assert chance["exact_match"] == pytest.approx(accuracy_score(right, said))
    assert chance["mean_average_precision"] == pytest.approx(right.float().mean().item())
    assert chance["auroc"] == 0.5 and set(chance) <= set(values)


def test_an_absent_class_and_a_split_without_any() -> None:
    logits, truth, labelled = make()
    truth[:, 1] = 0.0
    _, values = scored(logits, truth, labelled)
    kept = [0, 2]
    precision = average_precision_score(truth[labelled][:, kept], logits[labelled][:, kept], average="macro")
    assert values["mean_average_precision"].item() == pytest.approx(precision, abs=0.01)
    _, values = scored(-logits.abs(), truth * 0.0, labelled)
    assert values["mean_average_precision"] == 0.0 and "auroc" not in values
    assert values["exact_match"] == 1.0 and values["micro_f1"] == 0.0


@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_unlabelled_rows_change_no_bit(garbage: float) -> None:
    logits, truth, labelled = make()
    _, clean = scored(logits, truth, labelled)
    unknown = ~labelled.unsqueeze(1)
    _, dirty = scored(logits.masked_fill(unknown, garbage), truth.masked_fill(unknown, garbage), labelled)
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


@pytest.mark.parametrize("reads", ["fused", "image"])
def test_the_loss_is_that_of_torch_over_labelled_rows_with_something_to_read(reads: str) -> None:
    logits, truth, _ = make()
    batch = rows_of(truth[:4], torch.tensor([True, False, True, True]), image=[1, 2, 0, 3])
    total, count = make_task(input=reads).loss(logits[:4], batch)
    assert count == 2
    torch.testing.assert_close(total / 2, F.binary_cross_entropy_with_logits(logits[[0, 3]], truth[[0, 3]]))


def test_balanced_weights_are_the_odds_of_lacking_a_class() -> None:
    weights = make_task(positive_weights="balanced").positive_weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 8 / 2, 1 / 10]))  # a class of all rows has some weight
    logits, truth, labelled = make()
    total, _ = make_task(positive_weights="balanced").loss(logits, rows_of(truth, labelled))
    expected = F.binary_cross_entropy_with_logits(
        logits[labelled], truth[labelled], pos_weight=weights, reduction="sum"
    )
    torch.testing.assert_close(total, expected / 3)


def test_confidence_is_the_probability_of_what_is_true() -> None:
    logits, truth, labelled = make()
    total, count = make_task().confidence(logits, rows_of(truth, labelled))
    probability = torch.where(truth > 0, logits.sigmoid(), 1 - logits.sigmoid())[labelled]
    assert count == labelled.sum()
    torch.testing.assert_close(total, probability.mean(dim=1).sum())


def test_what_it_says_of_a_row_are_the_classes_above_a_half() -> None:
    batch = rows_of(torch.zeros(3, 3), torch.zeros(3).bool(), image=[1, 0, 2])
    rows = make_task().rows(torch.tensor([[0.6, 0.2, 0.9], [0.9, 0.9, 0.9], [0.1, 0.5, 0.2]]).logit(), batch)
    assert rows[0] == {"labels": ["c", "a"], "probabilities": pytest.approx([0.9, 0.6])}
    assert rows[1] == {}  # no modality to read
    assert rows[2] == {"labels": [], "probabilities": []}


class ByClass:
    modalities = ("image", "text")
    combine_method = "product"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tags"}, "target = tags, but there is labels, label"),
        ({"target": "label"}, "target = label has no lists of classes; .*target@data.targets.label=multilabel"),
        ({"input": "audio"}, "input = audio, but there is fused, image"),
        ({"positive_weights": "even"}, "positive_weights = even; set it to balanced or null"),
        ({"decides": ByClass()}, "fusion.combine = product .* set it to mean_logits"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)
