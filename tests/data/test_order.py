"""The order of the samples: a bijection for every size, even, different by seed and epoch, and without memory."""

import random
import time
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mmtrain.data.order import BlockOrder, KeyedOrder, draw_seed, mix, permute, permute_many


def order(size: int, *, seed: int = 0, epoch: int = 0) -> list[int]:
    return [permute(p, size, seed=seed, epoch=epoch) for p in range(size)]


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
    assert [permute(p, 100, seed=0, epoch=0) for p in (0, 1, 2, 99)] == [order(100)[p] for p in (0, 1, 2, 99)]


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
        by_epoch = Counter(permute(position, size, seed=5, epoch=epoch) for epoch in range(draws))
        by_seed = Counter(permute(position, size, seed=seed, epoch=5) for seed in range(draws))
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
    rows = {permute(p, size, seed=0, epoch=0) for p in range(0, size, size // 2000)}
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


def test_many_positions_at_once_give_the_same_rows() -> None:
    for size in [*range(1, 130), 1023, 1024, 1025]:
        assert permute_many(np.arange(size), size, seed=size, epoch=3).tolist() == order(size, seed=size, epoch=3)
    places = np.array([0, 5, 10**9 - 1, 5])
    wanted = [permute(int(p), 10**9, seed=-1, epoch=2) for p in places]
    assert permute_many(places, 10**9, seed=-1, epoch=2).tolist() == wanted
    assert KeyedOrder(50).rows(np.arange(7, 31, 3), seed=4, epoch=1).tolist() == order(50, seed=4, epoch=1)[7:31:3]
    assert len(permute_many(np.arange(0), 10, seed=0, epoch=0)) == 0


# ------------------------------------------------------------------- in blocks


def rows_of(blocks: BlockOrder, *, seed: int = 1, epoch: int = 0) -> list[int]:
    return [blocks.row(p, seed=seed, epoch=epoch) for p in range(len(blocks))]


def test_blocks_of_any_size_give_every_row_once() -> None:
    draw = random.Random(0)
    for _ in range(200):
        sizes = [draw.randrange(0, 9) for _ in range(draw.randrange(1, 9))]
        for window in (1, 2, 3, 20):
            blocks, size = BlockOrder(sizes, window=window), sum(sizes)
            result = rows_of(blocks, epoch=5)
            assert sorted(result) == list(range(size)), (sizes, window)
            for places in (
                [*range(size)],
                [*range(size // 3, size, 2)],
                draw.choices(range(size), k=9) if size else [],
            ):
                requested = np.array(places, dtype=np.int64)
                assert blocks.rows(requested, seed=1, epoch=5).tolist() == [result[place] for place in places]


def test_a_window_reads_from_its_blocks_alone_and_mixes_them() -> None:
    sizes = [10, 30, 20, 25, 15, 40, 5]
    block_of = np.repeat(np.arange(7), sizes)
    result = block_of[rows_of(BlockOrder(sizes, window=3))]
    seen: list[set[int]] = [set(result[:0])]
    for block in result:
        if len(seen[-1] | {block}) > 3:
            seen.append(set())
        seen[-1].add(int(block))
    assert [len(window) for window in seen] == [3, 3, 1]
    assert len(set().union(*seen)) == 7
    changes = sum(a != b for a, b in pairwise(result))
    assert changes > 60, "rows of the blocks of a window are among one another"


def test_blocks_come_in_another_order_each_epoch_and_the_same_one_each_time() -> None:
    blocks = BlockOrder([4, 5, 6, 7, 8], window=2)
    by_epoch = [rows_of(blocks, epoch=epoch) for epoch in range(8)]
    assert len({tuple(result) for result in by_epoch}) == 8
    assert [rows_of(BlockOrder([4, 5, 6, 7, 8], window=2), epoch=epoch) for epoch in range(7, -1, -1)] == by_epoch[::-1]
    assert rows_of(blocks, seed=2) != rows_of(blocks, seed=3)


def test_the_order_of_blocks_never_changes_between_versions() -> None:
    # resuming a run with a newer mmtrain depends on it
    assert rows_of(BlockOrder([3, 4, 2, 3], window=2), seed=0) == [6, 4, 1, 0, 2, 3, 5, 8, 9, 11, 10, 7]


def test_a_window_of_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="window = 0"):
        BlockOrder([1, 2], window=0)


def test_a_billion_rows_take_microseconds_and_the_memory_of_their_blocks() -> None:
    size, num_blocks = 10**9, 10**5
    places = range(0, size, size // 400)
    tracemalloc.start()
    blocks = BlockOrder(np.full(num_blocks, size // num_blocks), window=8)
    blocks.row(0, seed=0, epoch=0)
    held, _ = tracemalloc.get_traced_memory()
    for epoch in range(4):
        for place in places:
            blocks.row(place, seed=0, epoch=epoch)
            permute(place, size, seed=0, epoch=epoch)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 * num_blocks
    assert after - held < 24 * num_blocks, "at most the plan of one more epoch"
    for name, row in (
        ("permuted", lambda p: permute(p, size, seed=0, epoch=0)),
        ("BlockOrder", lambda p: blocks.row(p, seed=0, epoch=0)),
    ):
        started = time.perf_counter()
        for place in places:
            row(place)
        print(f"{name}: {(time.perf_counter() - started) / len(places) * 1e6:.1f} us a position of 10**9")
