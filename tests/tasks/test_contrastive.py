"""Contrastive: open_clip's loss, shared contents, missing sides, and gradients of several real ranks."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from open_clip import loss as open_clip
from torch import Tensor

from mmtrain.distributed import all_reduce_sum as over_ranks
from mmtrain.model import MultimodalModel
from mmtrain.tasks.contrastive import Contrastive
from mmtrain.types import Batch, Retrieval
from tests.batches import DIM, gradients, make_batch, make_model, random_batch
from tests.ranks import on_ranks

Sides = tuple[list[int], list[int]]

# one batch per rank: all pairs; some sides missing; no pair at all; a caption that is also on another rank
RANKS: list[Sides] = [
    ([1, 2, 3, 4], [11, 12, 13, 14]),
    ([5, 0, 6, 2], [11, 12, 0, 0]),
    ([0, 7, 0, 8], [15, 0, 0, 0]),
]


OPTIONS: dict[str, Any] = {
    "modalities": ["image", "text"],
    "embed_dim": 6,
    "temperature": 0.2,
    "min_temperature": 0.01,
    "dropout": 0.0,
    "weight": 1.0,
    "loss": "info_nce",
    "bias": -10.0,
    "queue_size": 0,
    "chunk_size": 1024,
    "exchange": "gather",
}


def make_task(**options: Any) -> Contrastive:
    return Contrastive(dims={"image": DIM, "text": DIM}, **(OPTIONS | options))


def vectors(size: int) -> dict[str, Tensor]:
    drawn = {m: torch.nn.functional.normalize(torch.randn(size, 6), dim=1) for m in ("image", "text")}
    return {m: v.requires_grad_() for m, v in drawn.items()}


def test_with_unshared_pairs_it_is_the_loss_of_open_clip() -> None:
    reference_loss = open_clip.ClipLoss()
    task, predictions = make_task(), vectors(5)
    batch = make_batch([1, 2, 3, 4, 5], [11, 12, 13, 14, 15])
    total, count = task.loss(predictions, batch)
    expected = reference_loss(predictions["image"], predictions["text"], task.log_scale.exp())
    assert count == 5
    torch.testing.assert_close(total / count, expected, rtol=1e-6, atol=1e-6)
    wanted = [*predictions.values(), task.log_scale]
    for one, other in zip(
        torch.autograd.grad(total / count, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_mean_of_both_directions_written_out(seed: int) -> None:
    """Present items are in the denominators; only rows with both sides are queries; shared items are positives."""
    task, predictions = make_task(), vectors(8)
    batch = random_batch(seed, contents=4)
    sides, has = {m: batch.keys[m].tolist() for m in task.reads}, {m: batch.present[m].tolist() for m in task.reads}
    pairs = {(a, b) for a, b in zip(sides["image"], sides["text"], strict=True) if a and b}
    expected = torch.zeros(())
    for query, gallery, flip in (("image", "text", False), ("text", "image", True)):
        for i in range(8):
            if not (has["image"][i] and has["text"][i]):
                continue
            available = [j for j in range(8) if has[gallery][j]]
            requested = sides[query][i]
            right = [
                j
                for j in available
                if ((sides[gallery][j], requested) if flip else (requested, sides[gallery][j])) in pairs
            ]
            score = {j: (predictions[query][i] * predictions[gallery][j]).sum() / 0.2 for j in available}
            denominator = torch.stack(list(score.values())).logsumexp(dim=0)
            expected = expected + sum(denominator - score[j] for j in right) / len(right) / 2
    total, _ = task.loss(predictions, batch)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)


def test_vectors_are_of_unit_length_and_float32_under_autocast() -> None:
    model = make_model(tasks=("contrastive",), fusion=None).float()
    batch = make_batch([1, 2, 0], [1, 0, 3]).map(lambda t: t.float() if t.is_floating_point() else t)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model(batch)["contrastive"]
        loss, _ = model.named_tasks()["contrastive"].loss(predictions, batch)
    assert loss.dtype is torch.float32
    for modality, result in predictions.items():
        assert result.dtype is torch.float32
        lengths = result.norm(dim=1)[batch.present[modality]]
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_the_temperature_starts_where_it_is_set() -> None:
    assert 1 / make_task(temperature=0.07).scale.item() == pytest.approx(0.07)


@pytest.mark.parametrize("beyond", [0.0, 0.5])
def test_the_scale_stops_at_a_hundred_and_can_come_back(beyond: float) -> None:
    task, predictions = make_task(), vectors(4)
    batch = make_batch([1, 2, 3, 4], [11, 12, 13, 14])
    with torch.no_grad():
        task.log_scale.fill_(math.log(100) + beyond)
    total, _ = task.loss(predictions, batch)
    assert task.scale.item() == pytest.approx(100)
    total.backward()
    assert task.log_scale.grad > 0  # random vectors: a softer distribution would have a lower loss
    torch.optim.SGD([task.log_scale], lr=1e-3).step()
    assert task.scale < 100


def test_rows_give_the_similarity_of_the_own_pair() -> None:
    task, predictions = make_task(), vectors(3)
    rows = task.rows(predictions, make_batch([1, 2, 0], [1, 0, 3]))
    expected = (predictions["image"][0] @ predictions["text"][0]).item()
    assert rows == [{"similarity": pytest.approx(expected, abs=1e-6)}, {}, {}]


def test_exhibits_name_the_rows_of_both_directions() -> None:
    task, metric = make_task(), make_task().metrics()
    task.update(metric, vectors(3), make_batch([1, 2, 3], [11, 12, 13], first=4))
    shown = task.report_items(metric.compute(), lambda row: f"id-{row}")
    assert [(e.query, e.gallery) for e in shown if isinstance(e, Retrieval)] == [("text", "image"), ("image", "text")]
    for exhibit in shown:
        assert isinstance(exhibit, Retrieval)
        assert exhibit.queries == ["id-4", "id-5", "id-6"]
        for query, hits in zip(exhibit.queries, exhibit.hits, strict=True):
            assert [hit.id for hit in hits if hit.correct] == [query]
            assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]


@pytest.mark.parametrize("modalities", [["image"], ["image", "image"], ["image", "text", "image"]])
def test_one_modality_alone_or_twice_is_refused(modalities: list[str]) -> None:
    with pytest.raises(ValueError, match=r"contrastive needs two or more different ones, such as \[image, text\]"):
        make_task(modalities=modalities)


def test_of_three_modalities_every_two_are_a_pair() -> None:
    """Loss, count and metrics are those of the three pairs, each as a separate task."""
    parts = dict.fromkeys(("image", "text", "audio"), DIM)
    three = Contrastive(dims=parts, **(OPTIONS | {"modalities": list(parts)}))
    batch = random_batch(3, size=12, contents=5)
    batch.present["audio"] = torch.arange(12) % 3 != 1
    batch.keys["audio"] = torch.where(batch.present["audio"], torch.arange(12) + 50, 0)
    torch.manual_seed(1)
    given = {m: torch.nn.functional.normalize(torch.randn(12, 6), dim=1) for m in parts}
    total, count = three.loss(given, batch)
    metric = three.metrics()
    three.update(metric, given, batch)
    result = metric.compute()
    sums, counts, recalls = torch.zeros(()), 0, []
    for left, right in (("image", "text"), ("image", "audio"), ("text", "audio")):
        two = Contrastive(dims=parts, **(OPTIONS | {"modalities": [left, right]}))
        loss, of_pair = two.loss({left: given[left], right: given[right]}, batch)
        sums, counts = sums + loss, counts + int(of_pair)
        one = two.metrics()
        two.update(one, given, batch)
        alone = one.compute()
        recalls.append(alone["recall"])
        for name in (f"{left}_to_{right}_R@5", f"{right}_to_{left}_median_rank"):
            assert torch.equal(result[name], alone[name])
    torch.testing.assert_close(total, sums)
    assert int(count) == counts == int(three.count(batch)) > 0
    torch.testing.assert_close(result["recall"], torch.stack(recalls).mean())
    assert len(three.report_items(result, str)) == 6
    rows = three.rows(given, batch)
    assert sum(map(len, rows)) == counts and {n for row in rows for n in row} == {
        "image_text_similarity",
        "image_audio_similarity",
        "text_audio_similarity",
    }


def whole(sides: Sequence[Sides]) -> Batch:
    return make_batch([k for image, _ in sides for k in image], [k for _, text in sides for k in text])


def step(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """Return gradients of the sum over this process's rows, divided by the count over all ranks."""
    task = model.named_tasks()["contrastive"]
    total, count = task.loss(model.view(batch).predictions("contrastive"), batch)
    assert task.count(batch) == count
    (total / over_ranks(count).clamp(min=1)).backward()
    return {"loss": total.detach(), "count": count, **gradients(model)}


def step_of_rank(rank: int, sides: Sequence[Sides], training: bool) -> dict[str, Tensor]:
    return step(make_model(tasks=("contrastive",), fusion=None).train(training), make_batch(*sides[rank]))


@pytest.mark.parametrize("chosen", [(0, 1), (0, 2), (2, 2), (1, 0, 2)])
def test_gradients_summed_over_real_ranks_are_those_of_one_process(chosen: tuple[int, ...]) -> None:
    sides = [RANKS[i] for i in chosen]
    result = on_ranks(len(sides), step_of_rank, sides, True)
    expected = step(make_model(tasks=("contrastive",), fusion=None), whole(sides))
    assert (expected["count"] > 0) == (chosen != (2, 2))
    for name, value in expected.items():
        summed = sum(rank[name] for rank in result)
        torch.testing.assert_close(summed, value, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_in_evaluation_a_rank_looks_at_its_own_batch() -> None:
    result = on_ranks(2, step_of_rank, RANKS[:2], False)
    for mine, sides in zip(result, RANKS, strict=False):
        expected = step(make_model(tasks=("contrastive",), fusion=None).eval(), make_batch(*sides))
        torch.testing.assert_close(mine["loss"], expected["loss"])
        assert mine["count"] == expected["count"]


def test_a_least_temperature_above_the_first_one_is_refused() -> None:
    for wrong in (0.0, 0.3):
        with pytest.raises(ValueError, match="min_temperature"):
            make_task(temperature=0.2, min_temperature=wrong)


def test_a_rate_of_dropout_is_of_both_or_of_the_one_that_is_named() -> None:
    rates = [[part[1].p for part in make_task(dropout=given).projections.values()] for given in (0.3, {"text": 0.5})]
    assert rates == [[0.3, 0.3], [0.0, 0.5]]
    with pytest.raises(ValueError, match="dropout lists txt, but modalities has image, text"):
        make_task(dropout={"txt": 0.5})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"loss": "nce"}, "info_nce or sigmoid"), ({"chunk_size": 0}, "chunk"), ({"exchange": "ring"}, "loss to sigmoid")],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**wrong)


@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_a_queue_gives_wrong_answers_from_the_steps_before(loss: str) -> None:
    """Equals a batch that contains those rows without gradient; their positives are excluded."""
    task, plain = make_task(loss=loss, queue_size=6), make_task(loss=loss)
    old, new = make_batch([1, 2, 3], [11, 12, 0], first=0), make_batch([4, 2, 5], [14, 12, 15], first=3)
    before, now = vectors(3), vectors(3)
    task.loss(before, old)
    task.end_step()
    total, count = task.loss(now, new)
    both = make_batch([1, 2, 3, 4, 2, 5], [11, 12, 0, 14, 12, 15])
    assert count == 3
    scale, expected = float(plain.scale), torch.zeros(())
    for query, gallery in (("image", "text"), ("text", "image")):
        for i in range(3):
            score = scale * now[query][i] @ torch.cat([now[gallery], before[gallery].detach()]).T
            keys = torch.cat([new.keys[gallery], old.keys[gallery]])
            present = torch.cat([new.present[gallery], old.present[gallery]])
            right = keys == new.keys[gallery][i]
            present &= ~(right & (torch.arange(6) >= 3))
            if loss == "info_nce":
                expected = expected - (score[i] - score[present].logsumexp(0)) / 2
            else:
                signs = torch.where(right, 1.0, -1.0) * (score - 10.0)
                expected = expected - torch.nn.functional.logsigmoid(signs)[present].sum() / 2
    torch.testing.assert_close(total, expected)
    assert len(both) == 6
    task.eval()
    torch.testing.assert_close(task.loss(now, new)[0], plain.eval().loss(now, new)[0])


def test_a_queue_keeps_the_last_rows_and_comes_back_with_its_memory() -> None:
    task, other = make_task(queue_size=4), make_task(queue_size=4)
    for first in (1, 4, 7):
        task.loss(vectors(3), make_batch([first, first + 1, first + 2], [11, 12, 13]))
        task.end_step()
    assert sorted(task.queue.keys["image"].tolist()) == [6, 7, 8, 9]
    other.load_extra_state(task.extra_state())
    batch, now = make_batch([1, 2, 3], [11, 12, 13]), vectors(3)
    assert torch.equal(task.loss(now, batch)[0], other.loss(now, batch)[0])
    assert make_task().extra_state() == {}
    assert not [name for name in task.state_dict() if "queue" in name]


def test_more_rows_than_a_queue_has_room_for() -> None:
    task = make_task(queue_size=2)
    task.loss(vectors(5), make_batch([1, 2, 3, 4, 5], [11, 12, 13, 14, 15]))
    task.end_step()
    assert sorted(task.queue.keys["text"].tolist()) == [14, 15]


def sigmoid_of_rank(rank: int, sides: Sequence[Sides], chunk: int) -> dict[str, Tensor]:
    task = make_task(loss="sigmoid", chunk_size=chunk)
    batch = make_batch(*sides[rank])
    first = 4 * rank
    whole_size = sum(len(image) for image, _ in sides)
    torch.manual_seed(5)
    drawn = {m: torch.nn.functional.normalize(torch.randn(whole_size, 6), dim=1) for m in ("image", "text")}
    mine = {m: v[first : first + len(batch)].clone().requires_grad_() for m, v in drawn.items()}
    total, count = task.loss(mine, batch)
    total.backward()
    assert task.bias is not None and task.bias.grad is not None and task.log_scale.grad is not None
    return {
        "loss": total.detach(),
        "count": count,
        "bias": task.bias.grad,
        "scale": task.log_scale.grad,
        **{m: v.grad for m, v in mine.items() if v.grad is not None},
    }


@pytest.mark.parametrize("chunk", [2, 1024])
def test_the_sigmoid_loss_of_real_ranks_is_that_of_one_process(chunk: int) -> None:
    sides = RANKS
    result = on_ranks(len(sides), sigmoid_of_rank, sides, chunk)
    together = [([k for image, _ in sides for k in image], [k for _, text in sides for k in text])]
    expected = sigmoid_of_rank(0, together, 1024)
    for name in ("loss", "count", "bias", "scale"):
        torch.testing.assert_close(sum(rank[name] for rank in result), expected[name], rtol=1e-6, atol=1e-6)
    for m in ("image", "text"):
        torch.testing.assert_close(torch.cat([rank[m] for rank in result]), expected[m], rtol=1e-6, atol=1e-6)
