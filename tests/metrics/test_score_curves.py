"""Areas under curves against scikit-learn, exactly on binned scores and nearly on the scores themselves; real ranks."""

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from mmtrain.metrics.score_curves import FARTHEST, NUM_BINS, ScoreCurves, bin_of
from tests.ranks import on_ranks

SIZE, CLASSES = 300, 4


def make(seed: int = 0, absent: int | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) that say something of the classes (N,); one class may be absent."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, CLASSES, (SIZE,), generator=generator)
    if absent is not None:
        truth[truth == absent] = (absent + 1) % CLASSES
    logits = 2 * torch.randn(SIZE, CLASSES, generator=generator, dtype=torch.float64)
    logits[torch.arange(SIZE), truth] += 1.5
    return logits.softmax(dim=1), truth


def shown(probability: Tensor, truth: Tensor, batch: int = 37) -> ScoreCurves:
    metric = ScoreCurves(num_classes=CLASSES)
    for start in range(0, len(truth), batch):
        metric.update(probability[start : start + batch], truth[start : start + batch])
    return metric


def reference(scores: Tensor, has: Tensor) -> dict[str, float]:
    """By scikit-learn, over the classes that occur."""
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
    for name, expected in reference(bin_of(probability), has).items():
        assert values[name].item() == pytest.approx(expected, abs=1e-12)
    for name, expected in reference(probability, has).items():
        assert values[name].item() == pytest.approx(expected, abs=4e-3)
    shares = [has[:, c].mean().item() for c in range(CLASSES) if has[:, c].any()]
    assert values["mean_average_precision/chance"].item() == pytest.approx(sum(shares) / len(shares))
    assert values["auroc/chance"] == 0.5


def test_small_probabilities_are_told_apart_and_the_outermost_are_not() -> None:
    probability = torch.tensor([0.0, 1e-30, 1e-6, 1e-4, 0.5, 1 - 1e-6, 1.0], dtype=torch.float64)
    bins = bin_of(probability).tolist()
    assert bins == sorted(bins) and len(set(bins)) == 6
    assert (bins[0], bins[1], bins[4], bins[-1]) == (0, 0, NUM_BINS // 2, NUM_BINS - 1)
    assert pytest.approx(0.1) == 2 * FARTHEST / NUM_BINS


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


def share_of_rank(rank: int, world_size: int) -> dict[str, Tensor]:
    """The last rank is never shown a row."""
    probability, truth = make()
    rows = torch.arange(SIZE) % (world_size - 1) == rank
    metric = ScoreCurves(num_classes=CLASSES)
    if rank < world_size - 1:
        metric.update(probability[rows], truth[rows])
    return metric.compute()


def test_real_ranks_give_the_values_of_one() -> None:
    expected = shown(*make()).compute()
    for values in on_ranks(3, share_of_rank, 3):
        assert values == expected
