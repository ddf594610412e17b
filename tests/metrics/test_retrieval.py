"""Recall against brute force: every order of tied items, loops over distinct contents, real ranks."""

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from mmtrain.metrics.retrieval import RetrievalMetric, expected_hits, expected_precisions, expected_ranks
from tests.ranks import on_ranks

Row = tuple[int, int]  # content keys of image and text as in tests.batches: -k has only the key, not the content
AT = (1, 2, 5)


def vector_of(side: str, key: int, tied: bool = False) -> Tensor:
    """Return a function of the content, with few directions if ties are wanted."""
    key = abs(key) % 3 if tied else abs(key)
    generator = torch.Generator().manual_seed(key + (1000 if side == "text" else 0))
    return F.normalize(torch.randn(6, generator=generator), dim=0)


def make_rows(seed: int, size: int = 23) -> list[Row]:
    """Return shared images and captions, missing sides, rows that have only a key."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(1, 12, (size, 2), generator=generator)
    signs = torch.tensor([1, 1, 1, 1, 0, -1])[torch.randint(0, 6, (size, 2), generator=generator)]
    rows = [(int(image), int(text)) for image, text in keys * signs]
    return [(3, 5), *rows[1:]]  # ensures one complete pair


def update(metric: RetrievalMetric, rows: Sequence[Row], numbers: Sequence[int], tied: bool = False) -> None:
    sides = {"image": [image for image, _ in rows], "text": [text for _, text in rows]}
    metric.update(
        vectors={side: torch.stack([vector_of(side, key, tied) for key in keys]) for side, keys in sides.items()},
        present={side: torch.tensor(keys) > 0 for side, keys in sides.items()},
        keys={side: torch.tensor(keys).abs() for side, keys in sides.items()},
        rows=torch.tensor(numbers),
    )


def make_metric(chunk: int = 1024) -> RetrievalMetric:
    return RetrievalMetric(modalities=("image", "text"), at=AT, num_shown=4, chunk=chunk)


def score(rows: Sequence[Row], *, tied: bool = False, chunk: int = 1024, batch: int = 7) -> dict[str, Tensor]:
    metric = make_metric(chunk)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        update(metric, part, range(start, start + len(part)), tied)
    return metric.compute()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)


def plain(rows: Sequence[Row], query: int, k: int) -> tuple[float, float]:
    """Recall and chance level of one direction (0: images are queries): sets, sorting, no ties."""
    sides, names = ([image for image, _ in rows], [text for _, text in rows]), ("image", "text")
    queries, gallery = ({key for key in sides[side] if key > 0} for side in (query, 1 - query))
    pairs = {(abs(row[query]), abs(row[1 - query])) for row in rows if 0 not in row}
    hits, chances = [], []
    for q in queries:
        right = {g for g in gallery if (q, g) in pairs}
        if not right:
            continue
        near = sorted(gallery, key=lambda g: -float(vector_of(names[query], q) @ vector_of(names[1 - query], g)))
        hits.append(bool(right & set(near[:k])))
        chances.append(1 - math.comb(len(gallery) - len(right), k) / math.comb(len(gallery), min(k, len(gallery))))
    return sum(hits) / len(hits), sum(chances) / len(chances)


@pytest.mark.parametrize("seed", range(4))
def test_recall_and_chance_are_those_of_loops(seed: int) -> None:
    rows = make_rows(seed)
    values = score(rows)
    everything = []
    for query, direction in enumerate(("image_to_text", "text_to_image")):
        for k in AT:
            recall, chance = plain(rows, query, k)
            assert values[f"{direction}_R@{k}"].item() == pytest.approx(recall, abs=1e-6)
            assert values[f"{direction}_R@{k}/chance"].item() == pytest.approx(chance, abs=1e-6)
            everything.append((recall, chance))
    for name, column in (("recall", 0), ("recall/chance", 1)):
        assert values[name].item() == pytest.approx(sum(pair[column] for pair in everything) / 6, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 3, 6, 9])
def test_expected_hits_is_the_mean_over_every_order_of_tied_items(seed: int, k: int) -> None:
    torch.manual_seed(seed)
    similarity = torch.randint(0, 3, (4, 6)).float()
    positive = torch.rand(4, 6) < 0.3
    positive[torch.arange(4), torch.randint(0, 6, (4,))] = True
    expectation, chance = expected_hits(similarity, positive, k)
    orders = list(itertools.permutations(range(6)))
    for row in range(4):
        hits = random_hits = 0
        for order in orders:
            ranked = sorted(order, key=lambda j: -float(similarity[row, j]))  # stable: ties keep the drawn order
            hits += any(bool(positive[row, j]) for j in ranked[:k])
            random_hits += any(bool(positive[row, j]) for j in order[:k])
        assert expectation[row].item() == pytest.approx(hits / len(orders), abs=1e-9)
        assert chance[row].item() == pytest.approx(random_hits / len(orders), abs=1e-9)


@pytest.mark.parametrize("size", [5, 37, 400])
def test_collapsed_features_score_k_of_n(size: int) -> None:
    metric = make_metric(chunk=64)
    same = F.normalize(torch.randn(1, 100), dim=1).expand(size, -1)
    keys = torch.randperm(size) + 1
    sides = ("image", "text")
    metric.update(
        vectors=dict.fromkeys(sides, same),
        present=dict.fromkeys(sides, keys > 0),
        keys=dict.fromkeys(sides, keys),
        rows=torch.arange(size),
    )
    values = metric.compute()
    for direction, k in itertools.product(("image_to_text", "text_to_image"), AT):
        assert values[f"{direction}_R@{k}"].item() == pytest.approx(k / size, abs=1e-6)
        assert values[f"{direction}_R@{k}/chance"].item() == pytest.approx(k / size, abs=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_batches_and_chunks_change_nothing(tied: bool) -> None:
    rows = make_rows(0)
    values = score(rows, tied=tied)
    for chunk, batch in ((1, 23), (2, 1), (5, 4), (1024, 23)):
        assert_same(values, score(rows, tied=tied, chunk=chunk, batch=batch))


def test_the_order_of_rows_changes_nothing() -> None:
    rows = make_rows(1)
    metric = make_metric()
    order = torch.randperm(len(rows)).tolist()
    for start in range(0, len(rows), 6):
        numbers = order[start : start + 6]
        update(metric, [rows[number] for number in numbers], numbers)
    assert_same(metric.compute(), score(rows))


def test_one_caption_of_several_pictures_and_several_captions_of_one() -> None:
    """Image 1 has texts 1 and 2 (the second in a row with only the image's key); images 2 and 3 share text 3."""
    rows = [(1, 1), (2, 3), (3, 3), (-1, 2)]
    values = score(rows)
    for query, direction in enumerate(("image_to_text", "text_to_image")):
        assert values[f"{direction}_R@1"].item() == pytest.approx(plain(rows, query, 1)[0])
    # three text queries on three images: one positive, two positives, one positive
    assert values["text_to_image_R@1/chance"].item() == pytest.approx((1 / 3 + 2 / 3 + 1 / 3) / 3)
    assert values["image_to_text_R@1/chance"].item() == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert values["text_to_image/shown_queries"].tolist() == [0, 1, 3]


def test_what_is_shown_are_the_nearest_items() -> None:
    rows = make_rows(2)
    values = score(rows, chunk=5)
    names = ("image", "text")
    for query, direction in enumerate(("image_to_text", "text_to_image")):
        first_row = {abs(row[1 - query]): i for i, row in reversed(list(enumerate(rows))) if row[1 - query] > 0}
        pairs = {(abs(row[query]), abs(row[1 - query])) for row in rows if 0 not in row}
        shown = [values[f"{direction}/shown_{kind}"].tolist() for kind in ("queries", "rows", "scores", "right")]
        assert len(shown[0]) > 3
        for requested, result, scores, right in zip(*shown, strict=True):
            q = vector_of(names[query], rows[requested][query])
            best = sorted(first_row, key=lambda g, q=q: -float(q @ vector_of(names[1 - query], g)))[:4]
            assert result == [first_row[g] for g in best]
            assert scores == pytest.approx([float(q @ vector_of(names[1 - query], g)) for g in best], abs=1e-6)
            assert right == [(rows[requested][query], g) in pairs for g in best]


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
@pytest.mark.parametrize("row", [(1, 1), (0, 1), (-1, 1)])
def test_a_vector_that_is_not_finite_fails_unless_it_is_missing(garbage: float, row: Row) -> None:
    metric = make_metric()
    present = torch.tensor([row[0] > 0])
    call: dict[str, Any] = {
        "vectors": {"image": torch.full((1, 6), garbage), "text": torch.ones(1, 6)},
        "present": {"image": present, "text": torch.tensor([True])},
        "keys": {"image": torch.tensor([abs(row[0])]), "text": torch.tensor([1])},
        "rows": torch.tensor([0]),
    }
    if present:
        with pytest.raises(FloatingPointError, match="embedding of image"):
            metric.update(**call)
        return
    metric.update(**call)
    assert metric.compute() == {}


@pytest.mark.parametrize("rows", [[(1, 0), (0, 1)], [(-1, 1), (-2, 2)], [(1, 0), (-2, 1)], [(0, 0)]])
def test_without_a_pair_there_is_nothing_to_score(rows: list[Row]) -> None:
    assert score(rows) == {}


def test_some_rows_ask_among_all() -> None:
    """The means over two halves of the queries, weighted by their size, give that over all."""
    rows = [(n, n + 30) for n in range(1, 12)]
    metric = make_metric()
    update(metric, rows, range(len(rows)))
    full = metric.compute()
    parts = []
    for asking in (range(4), range(4, 11), range(50, 60)):
        metric.asking, metric._computed = torch.tensor(list(asking)), None
        parts.append(metric.compute())
    name = "image_to_text_R@2"
    torch.testing.assert_close((4 * parts[0][name] + 7 * parts[1][name]) / 11, full[name])
    assert torch.equal(parts[0][f"{name}/chance"], full[f"{name}/chance"])
    assert parts[2] == {}


def test_nothing_warns() -> None:
    torch.set_warn_always(True)  # otherwise only the first time in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            score(make_rows(0))
    finally:
        torch.set_warn_always(False)


def share_of_rank(rank: int, world_size: int, batch: int) -> dict[str, Tensor]:
    """Batches round-robin with padding, as dealt by `EvalSteps`; a rank may get only padding."""
    metric, rows = make_metric(), make_rows(0)
    for turn in range(math.ceil(len(rows) / batch / world_size)):
        numbers = [(turn * world_size + rank) * batch + i for i in range(batch)]
        numbers = [number if number < len(rows) else -1 for number in numbers]
        update(metric, [rows[n] if n >= 0 else (0, 0) for n in numbers], numbers)
    return metric.compute()


@pytest.mark.parametrize(("world_size", "batch"), [(2, 5), (3, 23)])
def test_real_ranks_give_the_values_of_one(world_size: int, batch: int) -> None:
    for values in on_ranks(world_size, share_of_rank, world_size, batch):
        assert_same(values, score(make_rows(0)))


def by_every_order(score: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Rank of the first positive and average precision, the mean over all orders that the scores allow."""
    every = itertools.permutations(range(len(score)))
    orders = [order for order in every if all(score[a] >= score[b] for a, b in itertools.pairwise(order))]
    ranks, precisions = [], []
    for order in orders:
        hits = [right[i] for i in order]
        ranks.append(hits.index(True) + 1)
        precisions.append(sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / sum(hits))
    return sum(ranks) / len(orders), sum(precisions) / len(orders)


@pytest.mark.parametrize("seed", range(8))
def test_ranks_and_precisions_are_means_over_every_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 3, (5, 6), generator=generator) / 4
    positive = torch.rand(5, 6, generator=generator) < 0.4
    positive[:, seed % 6] = True
    ranks, rank_chance = expected_ranks(similarity, positive)
    precisions, precision_chance = expected_precisions(similarity, positive)
    for row in range(5):
        right = positive[row].tolist()
        rank, precision = by_every_order(similarity[row].tolist(), right)
        assert ranks[row].item() == pytest.approx(rank)
        assert precisions[row].item() == pytest.approx(precision)
        rank, precision = by_every_order([0.0] * 6, right)
        assert rank_chance[row].item() == pytest.approx(rank)
        assert precision_chance[row].item() == pytest.approx(precision)


def test_without_ties_average_precision_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity, positive = torch.rand(9, 40, generator=generator), torch.rand(9, 40, generator=generator) < 0.2
    positive[:, 0] = True
    expected = [average_precision_score(p, s) for p, s in zip(positive, similarity, strict=True)]
    assert expected_precisions(similarity, positive)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_median_is_over_queries_and_the_mean_over_queries_too() -> None:
    values = score([(i, i) for i in range(1, 8)])
    pictures, texts = (torch.stack([vector_of(side, i) for i in range(1, 8)]) for side in ("image", "text"))
    similarity = pictures @ texts.T
    ranks = sorted((similarity > similarity.diagonal().unsqueeze(1)).sum(1) + 1)
    assert values["image_to_text_median_rank"] == ranks[3]
    assert values["image_to_text_median_rank/chance"] == 4
    assert values["image_to_text_mAP"].item() == pytest.approx(sum(1 / int(rank) for rank in ranks) / 7)
