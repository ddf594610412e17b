"""The order of the samples: a bijection for every size, even, different by seed and epoch, and without memory."""

import time
from collections import Counter
from itertools import pairwise

import pytest

from mmtrain.data.order import draw_seed, mix, permuted


def order(size: int, *, seed: int = 0, epoch: int = 0) -> list[int]:
    return [permuted(p, size, seed=seed, epoch=epoch) for p in range(size)]


def chi_square(counts: Counter[int], bins: int) -> float:
    expected = counts.total() / bins
    return sum((counts[b] - expected) ** 2 / expected for b in range(bins))


def test_every_row_comes_once_for_every_size() -> None:
    for size in range(1, 301):
        assert sorted(order(size, seed=size, epoch=size % 7)) == list(range(size)), size


@pytest.mark.parametrize("size", [1023, 1024, 1025, 2764, 9001])
def test_every_row_comes_once_in_larger_splits(size: int) -> None:
    assert sorted(order(size, seed=1)) == list(range(size))


def test_the_order_is_the_same_each_time() -> None:
    assert order(100, seed=3, epoch=2) == order(100, seed=3, epoch=2)
    assert [permuted(p, 100, seed=0, epoch=0) for p in (0, 1, 2, 99)] == [order(100)[p] for p in (0, 1, 2, 99)]


def test_the_order_never_changes_between_versions() -> None:
    # resuming a run with a newer mmtrain depends on it
    assert order(12, seed=0, epoch=0) == [8, 6, 9, 1, 5, 0, 7, 2, 11, 3, 4, 10]
    assert draw_seed(3, 2, 1) == 3746110840386703336


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(order(50, seed=seed, epoch=epoch)) for seed in range(30) for epoch in range(30)}
    assert len(orders) == 900


@pytest.mark.parametrize("size", [6, 7, 10, 64])
def test_a_position_gets_every_row_about_equally_often(size: int) -> None:
    # chi-square has a mean of size - 1 and a standard deviation of sqrt(2 (size - 1)): 6 of those are never seen
    draws = 60 * size
    limit = size - 1 + 6 * (2 * (size - 1)) ** 0.5
    for position in (0, size // 2, size - 1):
        by_epoch = Counter(permuted(position, size, seed=5, epoch=epoch) for epoch in range(draws))
        by_seed = Counter(permuted(position, size, seed=seed, epoch=5) for seed in range(draws))
        assert chi_square(by_epoch, size) < limit
        assert chi_square(by_seed, size) < limit


def test_neighbours_are_not_kept_together() -> None:
    size, epochs = 100, 150
    following = sum(b == a + 1 for epoch in range(epochs) for a, b in pairwise(order(size, epoch=epoch)))
    assert 0.5 < following / epochs < 1.5  # one a shuffle is what chance gives


def test_rows_do_not_keep_their_places() -> None:
    size, epochs = 64, 150
    orders = [order(size, seed=9, epoch=epoch) for epoch in range(epochs)]
    same = sum(a == b for one, other in pairwise(orders) for a, b in zip(one, other, strict=True))
    assert 0.5 < same / (epochs - 1) < 1.5


def test_a_position_among_a_billion_costs_no_more_than_among_a_few() -> None:
    size = 10**9
    started = time.perf_counter()
    rows = {permuted(p, size, seed=0, epoch=0) for p in range(0, size, size // 2000)}
    assert time.perf_counter() - started < 2  # a list of them would take minutes
    assert len(rows) == 2000
    assert min(rows) < size // 100 and max(rows) > size - size // 100


def test_seeds_of_draws_are_distinct_and_fit_torch() -> None:
    seeds = {draw_seed(s, e, p) for s in range(10) for e in range(20) for p in range(200)}
    assert len(seeds) == 10 * 20 * 200
    assert all(0 <= s < 2**63 for s in seeds)
    assert draw_seed(1, 0, 0) != draw_seed(0, 1, 0) != draw_seed(0, 0, 1) != draw_seed(1, 0, 0)


def test_mix_takes_negative_and_large_numbers_and_every_bit_counts() -> None:
    assert len({mix(0), mix(-1), mix(1), mix(2**63), mix(0, 0), mix(0, 1), mix(1, 0)}) == 7
    flipped = [bin(mix(7, 11) ^ mix(7, 11 ^ (1 << bit))).count("1") for bit in range(64)]
    assert min(flipped) > 18 and max(flipped) < 46  # about half of the 64 bits change
    assert 29 < sum(flipped) / 64 < 35
