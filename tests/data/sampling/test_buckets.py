"""Batches by length: each sample once an epoch for any number of ranks, less padding, and any step at once."""

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mmtrain.data.dataset import Position
from mmtrain.data.loader import TrainSteps
from mmtrain.data.order import BlockOrder, KeyedOrder, Order
from mmtrain.data.sampling.buckets import BucketedSteps, halve
from mmtrain.data.sources.mix import MixOrder

SPLITS = [(ranks, parts) for ranks in (1, 2, 3) for parts in (1, 2, 4)]
SIZES = [(12, 4), (13, 4), (15, 4), (5, 5), (29, 12), (100, 8), (8, 1)]  # samples, batch size


def lengths_of(samples: int, longest: int = 40, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).lognormal(2, 0.7, samples).astype(np.int64), 1, longest)


def bucketed(samples: int, batch_size: int, *, ranks: int = 1, parts: int = 1, **more: Any) -> list[BucketedSteps]:
    """The steps of every rank."""
    shared: dict[str, Any] = {
        "lengths": lengths_of(samples),
        "order": KeyedOrder(samples),
        "seed": 3,
        "batch_size": batch_size,
        "max_tokens": None,
        "window": 3,
        "num_micro_batches": parts,
        "world_size": ranks,
    } | more
    return [BucketedSteps(rank=rank, **shared) for rank in range(ranks)]


def real(step: list[Position]) -> list[int]:
    return [position for _, position in step if position >= 0]


def all_steps(steps: BucketedSteps, epochs: int = 2) -> list[list[list[int]]]:
    return [[steps.batch(step, epoch) for step in range(len(steps))] for epoch in range(epochs)]


@pytest.mark.parametrize("max_tokens", [None, 60])
@pytest.mark.parametrize(("samples", "batch_size"), SIZES)
@pytest.mark.parametrize(("ranks", "parts"), SPLITS)
def test_an_epoch_has_each_position_once_in_the_same_steps_on_any_split(
    samples: int, batch_size: int, ranks: int, parts: int, max_tokens: int | None
) -> None:
    (alone,) = bucketed(samples, batch_size, max_tokens=max_tokens)
    for epoch in range(3):
        alone.set_epoch(epoch)
        by_rank = bucketed(samples, batch_size, ranks=ranks, parts=parts, max_tokens=max_tokens)
        for steps in by_rank:
            steps.set_epoch(epoch)
        turns = list(zip(*by_rank, strict=True))
        together = [sorted(p for share in turn for p in real(share)) for turn in turns]
        assert together == [sorted(real(step)) for step in alone]
        assert sorted(p for step in together for p in step) == list(range(samples))
        assert all(together), "no step is empty"
        assert all(len({len(share) for share in turn}) == 1 and len(turn[0]) % parts == 0 for turn in turns)
        assert all(e == epoch for turn in turns for share in turn for e, _ in share)
        assert len(turns) == len(alone)


@pytest.mark.parametrize(("samples", "batch_size"), SIZES)
def test_with_a_constant_batch_size_there_are_as_many_steps_as_without_buckets(samples: int, batch_size: int) -> None:
    (steps,) = bucketed(samples, batch_size)
    assert len(steps) == len(TrainSteps(num_samples=samples, batch_size=batch_size))
    sizes = [len(batch) for batch in all_steps(steps)[0]]
    assert sorted(sizes, reverse=True)[: samples // batch_size] == [batch_size] * (samples // batch_size)


@pytest.mark.parametrize("max_tokens", [None, 50])
def test_each_step_can_be_asked_for_at_once(max_tokens: int | None) -> None:
    def fresh() -> BucketedSteps:
        return bucketed(100, 8, max_tokens=max_tokens)[0]

    full = all_steps(fresh())
    for epoch in (1, 0):
        for step in reversed(range(len(fresh()))):
            assert fresh().batch(step, epoch) == full[epoch][step]
    assert full[0] != full[1]


@pytest.mark.parametrize("max_tokens", [None, 60])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_goes_on_with_exactly_the_steps_that_remain(ranks: int, max_tokens: int | None) -> None:
    def walk(first_step: int) -> list[list[list[Position]]]:
        passes = []
        for steps in bucketed(23, 5, ranks=ranks, parts=2, first_step=first_step, max_tokens=max_tokens):
            mine = []
            for epoch in range(steps.epoch, 3):
                steps.sampler.set_epoch(epoch)
                mine += list(steps)
            passes.append(mine)
        return passes

    everything = walk(0)
    for first_step in range(len(everything[0])):
        assert walk(first_step) == [mine[first_step:] for mine in everything], first_step


def test_a_limited_epoch_counts_its_steps_by_the_limit() -> None:
    (steps,) = bucketed(100, 10, first_step=7, limit=3)
    assert (steps.epoch, steps.start) == (2, 1)


def orders() -> list[Order]:
    return [KeyedOrder(3000), BlockOrder([500, 700, 1800], window=2)]


@pytest.mark.parametrize("order", orders(), ids=["keyed", "blocks"])
def test_samples_of_a_step_are_of_similar_lengths_and_neighbouring_positions(order: Order) -> None:
    lengths = lengths_of(3000)
    (steps,) = bucketed(3000, 16, order=order, window=20, lengths=lengths)

    def padded(batches: list[list[int]]) -> float:
        batch_lengths = [[int(lengths[order.row(p, seed=3, epoch=0)]) for p in batch] for batch in batches]
        return 1 - sum(map(sum, batch_lengths)) / sum(max(batch) * len(batch) for batch in batch_lengths)

    batches = all_steps(steps, 1)[0]
    plain = [list(range(first, min(first + 16, 3000))) for first in range(0, 3000, 16)]
    assert padded(batches) < 0.15 < 0.4 < padded(plain)
    assert all(max(batch) // 320 == min(batch) // 320 for batch in batches)
    longest = [int(lengths[order.row(batch[0], seed=3, epoch=0)]) for batch in batches]
    falls = sum(a > b for a, b in pairwise(longest))
    assert 0.35 < falls / len(longest) < 0.65, "a window's batches do not come by length"


@pytest.mark.parametrize("max_tokens", [40, 64, 300, 5000])
@pytest.mark.parametrize("window", [1, 4, 50])
def test_a_token_budget_holds_and_every_epoch_has_as_many_steps(max_tokens: int, window: int) -> None:
    samples, batch_size = 700, 32
    lengths = lengths_of(samples)
    (steps,) = bucketed(samples, batch_size, max_tokens=max_tokens, window=window, lengths=lengths)
    for epoch, batches in enumerate(all_steps(steps, 6)):
        assert sorted(p for batch in batches for p in batch) == list(range(samples))
        batch_lengths = [[int(lengths[steps.order.row(p, seed=3, epoch=epoch)]) for p in batch] for batch in batches]
        assert all(len(batch) * max(batch) <= max_tokens and 0 < len(batch) <= batch_size for batch in batch_lengths)


def test_the_budget_is_used() -> None:
    lengths = lengths_of(20_000)
    (steps,) = bucketed(20_000, 256, max_tokens=1024, window=50, lengths=lengths)
    assert len(steps) < 1.1 * lengths.sum() / 1024


@pytest.mark.parametrize("lengths", [np.full(50, 7), np.full(50, 40), np.arange(1, 51) % 41, np.zeros(50, int)])
def test_odd_lengths_give_no_empty_step(lengths: np.ndarray) -> None:
    for max_tokens in (40, 80):
        (steps,) = bucketed(50, 4, max_tokens=max_tokens, lengths=lengths, window=2)
        for batches in all_steps(steps, 3):
            assert all(batches)
            assert sorted(p for batch in batches for p in batch) == list(range(50))


def test_a_row_that_is_longer_than_the_budget_is_refused_with_advice() -> None:
    message = r"max_tokens = 9, but row 2 has 12\n    fix: set data.bucket.max_tokens to 12 or more"
    with pytest.raises(ValueError, match=message):
        bucketed(3, 1, lengths=np.array([1, 2, 12]), max_tokens=9)


def test_a_mixture_with_weights_has_no_budget() -> None:
    def order(shares: list[int]) -> MixOrder:
        return MixOrder(orders=[KeyedOrder(30), KeyedOrder(70)], sizes=[30, 70], shares=shares)

    bucketed(100, 4, order=order([30, 70]), max_tokens=100)
    bucketed(100, 4, order=order([50, 50]))
    with pytest.raises(ValueError, match="mix by size"):
        bucketed(100, 4, order=order([50, 50]), max_tokens=100)


def test_halving_keeps_every_row() -> None:
    assert halve([0], 7, 6) == list(range(7))
    assert halve([0, 5], 7, 0) == [0, 5]


def test_a_million_rows_are_planned_in_little_time() -> None:
    samples = 10**6
    lengths = np.tile(lengths_of(1000), 1000)
    started = time.perf_counter()
    (steps,) = bucketed(samples, 256, max_tokens=4096, window=100, lengths=lengths, first_step=30_000)
    next(iter(steps))
    budget = time.perf_counter() - started
    started = time.perf_counter()
    (steps,) = bucketed(samples, 256, window=100, lengths=lengths, first_step=30_000)
    next(iter(steps))
    print(f"put at a step of 10**6 rows: {budget:.2f} s with a budget, {time.perf_counter() - started:.3f} s without")


def test_rows_of_one_name_meet_and_their_company_changes() -> None:
    names = np.repeat(np.arange(1, 13), 4)
    (steps,) = bucketed(48, 8, lengths=names, window=6, names=True)
    epochs = []
    for epoch in range(4):
        batches = [steps.batch(step, epoch) for step in range(len(steps))]
        met = [names[steps.order.rows(np.array(batch), seed=3, epoch=epoch)] for batch in batches]
        assert [sorted(np.unique(rows, return_counts=True)[1]) for rows in met] == [[4, 4]] * 6
        epochs.append({frozenset(rows.tolist()) for rows in met})
    assert len(set.union(*epochs)) > 15, "of 24 at most"
