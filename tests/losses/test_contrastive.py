"""InfoNCE against open_clip and against loops; `related` against loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip import loss as open_clip
from torch import Tensor
from torch.nn import functional as F

from mmtrain.losses.contrastive import Related, by_chunks, info_nce, pairwise_sigmoid
from tests.batches import assert_same_bits

ROWS, WIDTH = 7, 5


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1).requires_grad_()


def everything(rows: int = ROWS) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)


def loop(queries: Tensor, keys: Tensor, positives: Tensor, scale: Tensor, valid: Tensor, there: Tensor) -> Tensor:
    """UniCL's equation, one query and one positive at a time, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(queries)):
        right = [j for j in range(len(keys)) if positives[i, j] and there[j]]
        if not valid[i] or not right:
            continue
        score = [scale.double() * (queries[i].double() * keys[j].double()).sum() for j in range(len(keys))]
        denominator = sum(score[j].exp() for j in range(len(keys)) if there[j])
        total = total - sum((score[j].exp() / denominator).log() for j in right) / len(right)
    return total


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_with_one_positive_each_it_is_the_loss_of_open_clip(scale: float) -> None:
    left, right = unit(ROWS, 1), unit(ROWS, 2)
    factor = torch.tensor(scale, requires_grad=True)
    own = torch.eye(ROWS, dtype=torch.bool)
    options = {"scale": factor, "valid_queries": everything(), "valid_keys": everything()}
    forward, count = info_nce(left, right, own, **options)
    backward, same_count = info_nce(right, left, own, **options)
    assert count == same_count == ROWS
    mine = (forward + backward) / 2 / count
    reference = open_clip.ClipLoss()(left, right, factor)
    torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)
    wanted = (left, right, factor)
    for one, other in zip(torch.autograd.grad(mine, wanted), torch.autograd.grad(reference, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_with_several_positives_and_missing_sides_it_is_the_loop(seed: int) -> None:
    torch.manual_seed(seed)
    queries, keys = unit(ROWS, 2 * seed), unit(ROWS + 2, 2 * seed + 1)
    positives = torch.rand(ROWS, ROWS + 2) < 0.3
    valid, there = torch.rand(ROWS) < 0.7, torch.rand(ROWS + 2) < 0.7
    scale = torch.tensor(5.0, requires_grad=True)
    total, count = info_nce(queries, keys, positives, scale=scale, valid_queries=valid, valid_keys=there)
    assert count == sum(bool(valid[i] and (positives[i] & there).any()) for i in range(ROWS))
    expected = loop(queries, keys, positives, scale, valid, there)
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)
    wanted = (queries, keys, scale)
    mine, reference = torch.autograd.grad(total, wanted), torch.autograd.grad(expected, wanted)
    for one, other in zip(mine, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not mine[0][~valid].any()
    assert not mine[1][~there].any()


@pytest.mark.parametrize(
    ("positive", "valid", "present"), [(False, True, True), (True, False, True), (True, True, False), (False,) * 3]
)
def test_without_a_pair_it_is_nothing_with_a_finite_gradient(positive: bool, valid: bool, present: bool) -> None:
    queries, keys, scale = unit(ROWS, 1), unit(ROWS, 2), torch.tensor(9.0, requires_grad=True)
    total, count = info_nce(
        queries,
        keys,
        torch.eye(ROWS, dtype=torch.bool) & positive,
        scale=scale,
        valid_queries=everything() & valid,
        valid_keys=everything() & present,
    )
    assert (total.item(), count.item()) == (0.0, 0)
    for gradient in torch.autograd.grad(total, (queries, keys, scale)):  # not None, because other ranks wait for it
        assert not gradient.any()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_vectors_of_missing_sides_change_no_bit(garbage: float) -> None:
    valid, there = torch.rand(ROWS) < 0.6, torch.rand(ROWS) < 0.6
    valid[0] = there[0] = True
    results = []
    for fill in (None, garbage):
        queries, keys = unit(ROWS, 1).detach().clone(), unit(ROWS, 2).detach().clone()
        if fill is not None:
            queries[~valid], keys[~there] = fill, fill
        queries.requires_grad_()
        keys.requires_grad_()
        scale = torch.tensor(9.0, requires_grad=True)
        positives = torch.eye(ROWS, dtype=torch.bool)
        total, _ = info_nce(queries, keys, positives, scale=scale, valid_queries=valid, valid_keys=there)
        total.backward()
        results.append({"loss": total.detach(), "q": queries.grad, "k": keys.grad, "scale": scale.grad})
    assert results[0]["loss"] > 0
    assert_same_bits(*results)


def test_it_is_float32_under_autocast() -> None:
    queries, keys = unit(ROWS, 1), unit(ROWS, 2)
    options = {"scale": torch.tensor(50.0), "valid_queries": everything(), "valid_keys": everything()}
    plain, _ = info_nce(queries, keys, torch.eye(ROWS, dtype=torch.bool), **options)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = info_nce(queries, keys, torch.eye(ROWS, dtype=torch.bool), **options)
    assert inside.dtype is torch.float32
    assert torch.equal(plain, inside)


@pytest.mark.parametrize("seed", range(5))
def test_related_is_the_loop(seed: int) -> None:
    torch.manual_seed(seed)
    left, right, queries, gallery = (torch.randint(0, 5, (n,)) for n in (9, 9, 6, 8))
    result = Related(left, right, gallery)(queries)
    assert result.shape == (6, 8) and result.dtype is torch.bool
    pairs = {(a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True) if a and b}
    assert result.tolist() == [[(q, g) in pairs for g in gallery.tolist()] for q in queries.tolist()]


def test_a_third_row_joins_two_that_share_with_it_and_a_chain_does_not() -> None:
    """Rows: image 1 with text 11, image 2 with text 11, image 2 with text 12, only text 12, only image 3."""
    pictures, texts = torch.tensor([1, 2, 2, 0, 3]), torch.tensor([11, 11, 12, 12, 0])
    result = Related(pictures, texts, texts)(pictures)
    assert result.int().tolist() == [
        [1, 1, 0, 0, 0],  # not text 12: only image 2 has it
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_related_knows_keys_of_every_size() -> None:
    """Keys are 63-bit hashes; float32 or float64 would merge adjacent ones."""
    big = 2**62
    left = torch.tensor([big, big + 1])
    right = torch.tensor([-big, -big - 1])
    assert torch.equal(Related(left, right, right)(left), torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_with_one_positive_each_the_sigmoid_loss_is_that_of_open_clip(scale: float) -> None:
    left, right = unit(ROWS, 1), unit(ROWS, 2)
    factor, bias = torch.tensor(scale, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    options = {"scale": factor, "bias": bias, "valid_queries": everything(), "valid_keys": everything()}
    total, count = pairwise_sigmoid(left, right, torch.eye(ROWS, dtype=torch.bool), **options)
    reference = open_clip.SigLipLoss()(left, right, factor, bias)
    torch.testing.assert_close(total / count, reference, rtol=1e-6, atol=1e-6)
    wanted = (left, right, factor, bias)
    pairs = zip(torch.autograd.grad(total / count, wanted), torch.autograd.grad(reference, wanted), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_sigmoid_loss_is_its_loop(seed: int) -> None:
    torch.manual_seed(seed)
    queries, keys = unit(ROWS, 2 * seed), unit(ROWS + 2, 2 * seed + 1)
    positives, ignored = torch.rand(ROWS, ROWS + 2) < 0.3, torch.rand(ROWS, ROWS + 2) < 0.2
    valid, there = torch.rand(ROWS) < 0.7, torch.rand(ROWS + 2) < 0.7
    options = {"scale": torch.tensor(5.0), "bias": torch.tensor(-1.0), "valid_queries": valid, "valid_keys": there}
    total, count = pairwise_sigmoid(queries, keys, positives, **options, ignored=ignored)
    expected = 0.0
    for i in range(ROWS):
        for j in range(ROWS + 2):
            if valid[i] and there[j] and not ignored[i, j]:
                logit = 5.0 * float(queries[i] @ keys[j]) - 1.0
                expected += math.log1p(math.exp(-logit if positives[i, j] else logit))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert count == valid.sum()


def test_what_is_ignored_is_as_if_it_were_not_there() -> None:
    queries, keys, positives = unit(4, 1), unit(6, 2), torch.eye(4, 6, dtype=torch.bool)
    options = {"scale": torch.tensor(5.0), "valid_queries": everything(4)}
    ignored = torch.arange(6).expand(4, 6) >= 4
    total, _ = info_nce(queries, keys, positives, **options, valid_keys=everything(6), ignored=ignored)
    expected, _ = info_nce(queries, keys[:4], positives[:, :4], **options, valid_keys=everything(4))
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("chunk", [1, 3, 6])
@pytest.mark.parametrize("loss", [info_nce, pairwise_sigmoid])
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(loss: Callable[..., Any], chunk: int) -> None:
    results = []
    for size in (chunk, ROWS):
        queries, keys = unit(ROWS, 1), unit(ROWS + 2, 2)
        scale, bias = torch.tensor(5.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
        ids = torch.tensor([1, 2, 3, 3, 4, 5, 6])
        related = Related(ids, ids, torch.tensor([1, 2, 3, 4, 4, 5, 6, 7, 8]))

        def block(
            queries: Tensor, ids: Tensor, valid: Tensor, keys=keys, scale=scale, bias=bias, related=related
        ) -> tuple[Tensor, Tensor]:
            options = {"scale": scale, "valid_queries": valid, "valid_keys": everything(ROWS + 2)}
            return loss(queries, keys, related(ids), **options, **({} if loss is info_nce else {"bias": bias}))

        total, count = by_chunks(block, (queries, ids, torch.arange(ROWS) != 2), chunk=size)
        wanted = [queries, keys, scale, *([] if loss is info_nce else [bias])]
        results.append([total.detach(), count, *torch.autograd.grad(total, wanted)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
