"""Pairwise accuracy and NDCG against loops and scikit-learn; ties; real ranks."""

import itertools

import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor

from mmtrain.metrics.ranking import TOP, RankingMetric
from tests.ranks import on_ranks

SIZE, GROUPS, FIRST_KEY = 90, 6, 2**62  # content keys are large


def make(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores and targets with ties; groups in any order, one with a single row, one with equal targets."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(0, GROUPS, (SIZE,), generator=generator)
    groups[groups == 4] = 0
    groups[7] = 4
    truths = torch.randint(0, 5, (SIZE,), generator=generator).double()
    truths[groups == 5] = 2.0
    return torch.randn(SIZE, generator=generator).round(decimals=1), truths, groups + FIRST_KEY


def shown(scores: Tensor, truths: Tensor, groups: Tensor, batch: int = 13, chunk: int = 1024) -> dict[str, Tensor]:
    metric = RankingMetric(mean=0.0, std=1.0, chunk=chunk)
    for start in range(0, len(truths), batch):
        metric.update(*(x[start : start + batch] for x in (scores, truths, groups)))
    return metric.compute()


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_scores_are_those_of_loops_and_scikit_learn(chunk: int) -> None:
    scores, truths, groups = make()
    right = pairs = 0.0
    for i, j in itertools.product(range(SIZE), repeat=2):
        if groups[i] == groups[j] and truths[i] > truths[j]:
            pairs += 1
            right += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    values = shown(scores, truths, groups, chunk=chunk)
    assert values["pairwise_accuracy"].item() == pytest.approx(right / pairs)
    assert values["pairwise_accuracy/chance"] == 0.5
    of = [[groups == g] for g in (FIRST_KEY + n for n in range(4))]
    each = [ndcg_score(truths[g].reshape(1, -1), scores[g].reshape(1, -1), k=TOP) for (g,) in of]
    assert values[f"ndcg@{TOP}"].item() == pytest.approx(sum(each) / len(each))


def test_a_constant_score_is_chance() -> None:
    scores, truths, groups = make()
    values = shown(torch.zeros_like(scores), truths, groups)
    for name in ("pairwise_accuracy", f"ndcg@{TOP}"):
        torch.testing.assert_close(values[name], values[f"{name}/chance"])


def test_chance_of_ndcg_is_the_mean_over_every_order() -> None:
    truths = torch.tensor([3.0, 0.0, 1.0, 1.0])
    values = shown(torch.arange(4.0), truths, torch.ones(4, dtype=torch.long))
    orders = [ndcg_score([truths.tolist()], [order], k=TOP) for order in itertools.permutations(range(4))]
    assert values[f"ndcg@{TOP}/chance"].item() == pytest.approx(sum(orders) / len(orders))


def test_negative_truths_have_pairs_but_no_gains_unless_it_is_rounding() -> None:
    scores, truths, groups = make()
    values = shown(scores, truths - 2.0, groups)
    assert set(values) == {"pairwise_accuracy", "pairwise_accuracy/chance"}
    assert values["pairwise_accuracy"] == shown(scores, truths, groups)["pairwise_accuracy"]
    rounded = shown(scores, torch.where(truths == 0, -1e-7, truths), groups)
    torch.testing.assert_close(rounded[f"ndcg@{TOP}"], shown(scores, truths, groups)[f"ndcg@{TOP}"])


def test_gains_are_in_the_units_of_the_table() -> None:
    scores, truths, groups = make()
    metric = RankingMetric(mean=2.0, std=3.0)
    metric.update(scores, (truths - 2.0) / 3.0, groups)
    for name, value in shown(scores, truths, groups).items():
        torch.testing.assert_close(metric.compute()[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("truths", [[1.0, 1.0, 2.0], [1.0], []])
def test_without_a_pair_there_is_nothing_to_score(truths: list[float]) -> None:
    size = len(truths)
    metric = RankingMetric(mean=0.0, std=1.0)
    metric.update(torch.zeros(size), torch.tensor(truths), torch.tensor([5, 5, 6])[:size])
    assert metric.compute() == {}


def share_of_rank(rank: int, world_size: int) -> dict[str, Tensor]:
    """Groups are spread over ranks; the last rank but one gets an empty batch, the last rank none."""
    rows = torch.arange(SIZE) % (world_size - 2) == rank
    metric = RankingMetric(mean=0.0, std=1.0)
    if rank < world_size - 1:
        metric.update(*(x[rows] for x in make()))
    return metric.compute()


def test_real_ranks_give_the_values_of_one() -> None:
    expected = shown(*make())
    for values in on_ranks(4, share_of_rank, 4):
        assert values.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(values[name], expected[name], rtol=1e-12, atol=1e-12)
