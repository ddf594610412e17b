"""Errors and correlations against scikit-learn and scipy; undefined values are omitted; real ranks."""

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor

from mmtrain.metrics.regression import RegressionMetric
from tests.ranks import on_ranks

SIZE, MEAN, STD = 50, [1990.0, -3.0], [12.0, 1e-5]
UNDEFINED = {"r2", "pearson", "spearman"}


def make(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return scaled predictions and targets, with ties."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(SIZE, 2, generator=generator).round(decimals=1)
    return (targets + torch.randn(SIZE, 2, generator=generator)).round(decimals=1), targets


def shown(predictions: Tensor, targets: Tensor, center: list[float] | None = None, batch: int = 7) -> dict[str, Tensor]:
    metric = RegressionMetric(std=STD[: targets.shape[1]], center=center)
    for start in range(0, len(targets), batch):
        metric.update(predictions[start : start + batch], targets[start : start + batch])
    return metric.compute()


def in_units(scaled: Tensor) -> Tensor:
    return scaled.double() * torch.tensor(STD).double() + torch.tensor(MEAN).double()


def test_scores_are_those_of_scikit_learn_in_the_units_of_the_table() -> None:
    predictions, targets = make()
    said, right = in_units(predictions), in_units(targets)
    values = shown(predictions, targets, center=[0.0, 0.0])
    columns = [(said[:, k], right[:, k]) for k in range(2)]
    expected = {
        "mae": mean_absolute_error(right, said),
        "rmse": root_mean_squared_error(right, said),
        "neg_rmse": -root_mean_squared_error(right, said),
        "r2": r2_score(right, said),
        "pearson": sum(pearsonr(p, t)[0] for p, t in columns) / 2,
        "spearman": sum(spearmanr(p, t)[0] for p, t in columns) / 2,
    }
    assert set(values) == {*expected, *(f"{name}/chance" for name in expected)}
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value, rel=1e-6), name
    guess = torch.tensor(MEAN).double().expand_as(right)
    chance = {"mae": mean_absolute_error(right, guess), "r2": r2_score(right, guess), "pearson": 0.0}
    for name, value in chance.items():
        assert values[f"{name}/chance"].item() == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_without_a_center_the_guess_is_the_mean_of_the_targets() -> None:
    predictions, targets = make()
    values = shown(predictions, targets)
    assert values["r2/chance"].item() == pytest.approx(0.0, abs=1e-12)
    deviations = in_units(targets).std(dim=0, correction=0)
    assert values["neg_rmse/chance"].item() == pytest.approx(-deviations.mean().item())
    assert values["neg_rmse"] == -values["rmse"] and values["neg_rmse/chance"] == -values["rmse/chance"]


def test_what_is_not_defined_is_left_out() -> None:
    predictions, targets = make()
    still = torch.full_like(targets, 0.3)
    assert not UNDEFINED & set(shown(predictions, still))
    assert UNDEFINED & set(shown(still, targets)) == {"r2"}
    assert not UNDEFINED & set(shown(predictions[:1], targets[:1]))
    one_still = torch.cat([targets[:, :1], still[:, 1:]], dim=1)
    one, both = shown(predictions[:, :1], targets[:, :1]), shown(predictions, one_still)
    for name in UNDEFINED:
        torch.testing.assert_close(both[name], one[name])
    assert all(value.isfinite() for value in both.values())


def test_without_a_row_there_is_nothing_to_score() -> None:
    metric = RegressionMetric(std=STD, center=None)
    metric.update(torch.empty(0, 2), torch.empty(0, 2))
    assert metric.compute() == {}


def test_a_right_prediction_is_perfect() -> None:
    _, targets = make()
    values = shown(targets, targets)
    for name, best in {"mae": 0.0, "rmse": 0.0, "neg_rmse": 0.0, "r2": 1.0, "pearson": 1.0, "spearman": 1.0}.items():
        assert values[name].item() == pytest.approx(best, abs=1e-9)


def share_of_rank(rank: int, world_size: int) -> dict[str, Tensor]:
    """The last rank but one gets an empty batch, the last rank none."""
    predictions, targets = make()
    rows = torch.arange(SIZE) % (world_size - 2) == rank
    metric = RegressionMetric(std=STD, center=None)
    if rank < world_size - 1:
        metric.update(predictions[rows], targets[rows])
    return metric.compute()


def test_real_ranks_give_the_values_of_one() -> None:
    expected = shown(*make())
    for values in on_ranks(4, share_of_rank, 4):
        assert values.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(values[name], expected[name], rtol=1e-9, atol=1e-9)
