"""Regression: units, chance, which rows count, errors. The scores themselves: tests/metrics/test_regression.py."""

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor
from torch.nn import functional as F

from mmtrain.config.instantiate import construct
from mmtrain.tasks.regression import Regression
from mmtrain.types import Batch, ClassTarget, NumberTarget
from tests.batches import CLASSES, DIM, make_batch

SIZE = 30
ONE = NumberTarget(names=["0"], mean=[1990.0], std=[12.5])
TWO = NumberTarget(names=["0", "1"], mean=[1990.0, -1.0], std=[12.5, 0.25])
UNSCALED = NumberTarget(names=["0"], mean=[0.0], std=[1.0])


def make_task(known: NumberTarget = ONE, **options: Any) -> Regression:
    parts = {"target": "number", "input": "fused", "weight": 1.0, "dropout": 0.0, "loss": "mse", "huber_delta": 1.0}
    targets = {"number": known, "label": ClassTarget(names=CLASSES, counts=[1, 1, 1])}
    return construct(Regression, dims={"fused": DIM, "image": DIM}, known_targets=targets, **(parts | options))


def rows_of(truth: Tensor, labelled: Tensor, image: list[int] | None = None) -> Batch:
    size = len(truth)
    batch = make_batch(image or [1] * size, [1] * size if image is None else [0] * size)
    batch.targets["number"], batch.labelled["number"] = truth, labelled
    return batch


def make(num: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return scaled predictions and targets, and which are labelled."""
    torch.manual_seed(0)
    truth = torch.randn(SIZE, num)
    return truth + torch.randn(SIZE, num), truth, torch.rand(SIZE) < 0.8


def scored(task: Regression, predictions: Tensor, truth: Tensor, labelled: Tensor) -> dict[str, Tensor]:
    metrics = task.metrics()
    for start in range(0, SIZE, 7):
        part = slice(start, start + 7)
        task.update(metrics, predictions[part], rows_of(truth[part], labelled[part]))
    return metrics.compute()


@pytest.mark.parametrize("known", [ONE, TWO])
def test_scores_and_chance_are_in_the_units_of_the_table(known: NumberTarget) -> None:
    task, (predictions, truth, labelled) = make_task(known), make(len(known.names))
    values = scored(task, predictions, truth, labelled)
    mean, std = torch.tensor(known.mean).double(), torch.tensor(known.std).double()
    said, right = (x[labelled].double() * std + mean for x in (predictions, truth))
    guess = mean.expand_as(right)
    chance = task.chance(values)
    for name, reference in {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}.items():
        assert values[name].item() == pytest.approx(reference(right, said), rel=1e-5)
        assert chance[name] == pytest.approx(reference(right, guess), rel=1e-5)
    assert chance["pearson"] == chance["spearman"] == 0.0


def test_chance_of_a_target_that_is_not_scaled_is_the_mean_of_its_rows() -> None:
    task, (predictions, truth, labelled) = make_task(UNSCALED), make()
    values = scored(task, predictions + 7.0, truth + 7.0, labelled)
    right = truth[labelled] + 7.0
    assert task.chance(values)["rmse"] == pytest.approx(right.std(correction=0).item(), rel=1e-5)
    assert task.chance(values)["r2"] == pytest.approx(0.0, abs=1e-9)


def test_constant_truths_have_errors_and_no_correlation() -> None:
    task, (predictions, truth, labelled) = make_task(), make()
    values = scored(task, predictions, torch.full_like(truth, 0.5), labelled)
    assert {name for name in values if not name.endswith("/chance")} == {"mae", "rmse", "neg_rmse"}
    assert task.monitor in values and set(task.chance(values)) == {"mae", "rmse", "neg_rmse"}


@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_unlabelled_rows_change_no_bit(garbage: float) -> None:
    task, (predictions, truth, labelled) = make_task(), make()
    unknown = ~labelled.unsqueeze(1)
    clean = scored(task, predictions, truth, labelled)
    dirty = scored(task, predictions.masked_fill(unknown, garbage), truth.masked_fill(unknown, garbage), labelled)
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


@pytest.mark.parametrize(
    ("loss", "reference"), [("mse", F.mse_loss), ("l1", F.l1_loss), ("huber", lambda *x: F.huber_loss(*x, delta=0.3))]
)
@pytest.mark.parametrize("reads", ["fused", "image"])
def test_the_loss_is_that_of_torch_over_labelled_rows_with_something_to_read(
    loss: str, reference: Any, reads: str
) -> None:
    predictions, truth, _ = make(2)
    batch = rows_of(truth[:4], torch.tensor([True, False, True, True]), image=[1, 2, 0, 3])
    total, count = make_task(TWO, loss=loss, huber_delta=0.3, input=reads).loss(predictions[:4], batch)
    assert count == 2
    torch.testing.assert_close(total / 2, reference(predictions[[0, 3]], truth[[0, 3]]))


def test_what_it_says_of_a_row_is_in_the_units_of_the_table() -> None:
    batch = rows_of(torch.zeros(2, 1), torch.zeros(2).bool(), image=[1, 0])
    assert make_task().rows(torch.tensor([[2.0], [0.0]]), batch) == [{"number": 2015.0}, {}]
    rows = make_task(TWO).rows(torch.tensor([[2.0, -1.0], [0.0, 0.0]]), batch)
    assert rows == [{"number": [2015.0, -1.25]}, {}]


class ByClass:
    modalities = ("image", "text")
    combine_method = "mean_probabilities"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "year"}, "target = year, but there is number, label"),
        ({"target": "label"}, "target = label has no numbers; .*target@data.targets.label=number"),
        ({"known": NumberTarget(names=[], mean=[], std=[])}, "target = number has no numbers"),
        ({"input": "audio"}, "input = audio, but there is fused, image"),
        ({"loss": "l3"}, "loss = l3, but there is mse, l1, huber"),
        ({"huber_delta": 0.0}, "huber_delta = 0.0 is not above 0"),
        ({"decides": ByClass()}, "fusion.combine = mean_probabilities .* set it to mean_logits"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)
