"""Areas under curves against scikit-learn: exact up to a limit, close with histograms, and over real ranks."""

import itertools

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from mmtrain.metrics.score_curves import MAX_SCORES, NUM_BINS, ScoreCurves, bin_of
from tests.ranks import on_ranks

SIZE, CLASSES = 300, 4


def make(seed: int = 0, absent: int | None = None) -> tuple[Tensor, Tensor]:
    """Return probabilities (N, C) that correlate with the classes (N,); one class may be absent."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, CLASSES, (SIZE,), generator=generator)
    if absent is not None:
        truth[truth == absent] = (absent + 1) % CLASSES
    logits = 2 * torch.randn(SIZE, CLASSES, generator=generator, dtype=torch.float64)
    logits[torch.arange(SIZE), truth] += 1.5
    return logits.softmax(dim=1), truth


def shown(probability: Tensor, truth: Tensor, batch: int = 37, max_scores: int = MAX_SCORES) -> ScoreCurves:
    metric = ScoreCurves(num_classes=CLASSES, max_scores=max_scores)
    for start in range(0, len(truth), batch):
        metric.update(probability[start : start + batch], truth[start : start + batch])
    return metric


def reference(scores: Tensor, has: Tensor) -> dict[str, float]:
    """Scores of scikit-learn, over the classes that occur."""
    occur = [c for c in range(CLASSES) if has[:, c].any()]
    return {
        "auroc": sum(roc_auc_score(has[:, c], scores[:, c]) for c in occur) / len(occur),
        "mean_average_precision": sum(average_precision_score(has[:, c], scores[:, c]) for c in occur) / len(occur),
    }


@pytest.mark.parametrize("absent", [None, 2])
@pytest.mark.parametrize("several", [False, True])
def test_areas_are_those_of_scikit_learn(absent: int | None, several: bool) -> None:
    probability, truth = make(absent=absent)
    has = torch.eye(CLASSES)[truth]
    if several:
        has = ((has + torch.eye(CLASSES)[truth.roll(1)]) > 0).float()
    values = shown(probability, has if several else truth).compute()
    for name, expected in reference(probability, has).items():
        assert values[name].item() == pytest.approx(expected, abs=1e-12)
    shares = [has[:, c].mean().item() for c in range(CLASSES) if has[:, c].any()]
    assert values["mean_average_precision/chance"].item() == pytest.approx(sum(shares) / len(shares))
    assert values["auroc/chance"] == 0.5


def confident(size: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return probabilities from logits of this scale."""
    generator = torch.Generator().manual_seed(size)
    truth = torch.randint(0, CLASSES, (size,), generator=generator)
    logits = torch.randn(size, CLASSES, generator=generator, dtype=torch.float64)
    logits[torch.arange(size), truth] += 1.0
    return (scale * logits).softmax(dim=1), truth


@pytest.mark.parametrize("scale", [1.0, 4.0, 30.0])
@pytest.mark.parametrize("size", [500, 2_000, 10_000])
def test_areas_are_right_for_any_number_of_rows_and_any_confidence(size: int, scale: float) -> None:
    probability, truth = confident(size, scale)
    values = shown(probability, truth, batch=1000).compute()
    for name, expected in reference(probability, torch.eye(CLASSES)[truth]).items():
        assert values[name].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("scale", "close"), [(1.0, 1e-4), (4.0, 1e-4), (30.0, 1e-3)])
def test_histograms_are_close_for_many_rows(scale: float, close: float) -> None:
    """At scale 30, many probabilities are so close to 1 that float64 ties them."""
    probability, truth = confident(10_000, scale)
    values = shown(probability, truth, batch=1000, max_scores=0).compute()
    for name, expected in reference(probability, torch.eye(CLASSES)[truth]).items():
        assert values[name].item() == pytest.approx(expected, abs=close)
    assert values["mean_average_precision/chance"].item() == pytest.approx(1 / CLASSES)


def test_tied_scores_are_those_of_scikit_learn() -> None:
    probability, truth = make()
    coarse = (probability * 8).round() / 8  # includes 0 and 1
    values = shown(coarse, truth).compute()
    for name, expected in reference(coarse, torch.eye(CLASSES)[truth]).items():
        assert values[name].item() == pytest.approx(expected, abs=1e-12)


def test_a_bin_scores_the_mean_over_every_order_of_it() -> None:
    metric = ScoreCurves(num_classes=1, max_scores=0)
    metric.update(torch.tensor([[0.9], [0.5], [0.5], [0.5], [0.5]]), torch.tensor([[0], [1], [1], [0], [0]]))
    orders = set(itertools.permutations([1, 1, 0, 0]))
    expected = [average_precision_score([0, *order], [5, 4, 3, 2, 1]) for order in orders]
    assert metric.compute()["mean_average_precision"].item() == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_bins_tell_small_probabilities_apart() -> None:
    probability = torch.tensor([0.0, 1e-300, 1e-30, 1e-6, 1e-4, 0.5, 1 - 1e-6, 1 - 1e-12, 1.0], dtype=torch.float64)
    bins = bin_of(probability.logit()).tolist()
    assert bins == sorted(bins) and len(set(bins)) == 9
    assert (bins[0], bins[5], bins[-1]) == (0, NUM_BINS // 2, NUM_BINS - 1)


def test_memory_is_bounded() -> None:
    metric = ScoreCurves(num_classes=CLASSES, max_scores=100)
    probability, truth = make()
    for start in range(0, SIZE, 20):
        metric.update(probability[start : start + 20], truth[start : start + 20])
        assert sum(map(len, metric.scores)) <= 100


def test_a_constant_score_is_chance() -> None:
    _, truth = make()
    values = shown(torch.full((SIZE, CLASSES), 0.25, dtype=torch.float64), truth).compute()
    for name in ("auroc", "mean_average_precision"):
        assert values[name].item() == pytest.approx(values[f"{name}/chance"].item())


def test_without_another_class_there_is_no_curve() -> None:
    probability, _ = make()
    values = shown(probability, torch.zeros(SIZE, dtype=torch.long)).compute()
    assert "auroc" not in values and values["mean_average_precision"] == 1.0
    nothing = shown(probability, torch.zeros(SIZE, CLASSES)).compute()
    assert set(nothing) == {"mean_average_precision", "mean_average_precision/chance"}
    assert not any(nothing.values())


def test_one_row_is_enough() -> None:
    values = shown(torch.tensor([[0.7, 0.1, 0.1, 0.1]]), torch.tensor([0])).compute()
    assert values["mean_average_precision"] == 1.0 and "auroc" not in values


def share_of_rank(rank: int, world_size: int, max_scores: int) -> dict[str, Tensor]:
    """The last rank gets no rows, the first rank most of them."""
    probability, truth = make()
    rows = (torch.arange(SIZE) % 10 == 1) if rank == 1 else (torch.arange(SIZE) % 10 != 1)
    metric = ScoreCurves(num_classes=CLASSES, max_scores=max_scores)
    if rank < world_size - 1:
        metric.update(probability[rows], truth[rows])
    return metric.compute()


@pytest.mark.parametrize("max_scores", [MAX_SCORES, SIZE * CLASSES - 1, 0])
def test_real_ranks_give_the_values_of_one(max_scores: int) -> None:
    """Includes the case that only all ranks together exceed the number of scores that are kept."""
    expected = shown(*make(), max_scores=max_scores).compute()
    for values in on_ranks(3, share_of_rank, 3, max_scores):
        assert set(values) == set(expected)
        for name, value in values.items():
            assert value.item() == pytest.approx(expected[name].item(), abs=1e-14)
