"""Collectives and complete models between real processes: the gradients are those of one process with all rows."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import distributed_c10d
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mmtrain.distributed import (
    all_reduce_sum,
    broadcast_object,
    gather,
    gather_objects,
    gather_with_gradient,
    rank,
    world_size,
)
from mmtrain.model import MultimodalModel
from mmtrain.training.global_batch import attach_global_batch
from mmtrain.training.nonfinite import NonFiniteCause
from mmtrain.types import Batch
from tests.batches import gradients, make_batch, make_model, make_tasks
from tests.fusions import FUSIONS
from tests.ranks import on_ranks

TASKS = ("contrastive", "classification", "matching", "masked_text", "masked_fusion", "masked_image")
Rows = tuple[list[int], list[int], list[int]]  # picture keys, text keys, labels

TEXT_ONLY: Rows = ([0, 0, 0], [11, 12, 13], [0, -1, 2])
IMAGE_ONLY: Rows = ([4, 5, 6], [0, 0, 0], [1, 1, -1])
BOTH: Rows = ([1, 2, 3], [11, 12, 11], [-1, 0, 2])
MIXED: Rows = ([7, 0, 8], [12, 13, 14], [2, -1, -1])
FILLERS: Rows = ([0, 0, 0], [0, 0, 0], [-1, -1, -1])


def test_one_process_is_a_world_of_its_own() -> None:
    x = torch.randn(3, requires_grad=True)
    assert (world_size(), rank()) == (1, 0)
    assert gather(x) is x and gather_with_gradient(x) is x
    summed = all_reduce_sum(x)
    assert torch.equal(summed, x) and not summed.requires_grad
    summed += 1.0
    assert not torch.equal(summed, x)  # a copy: the caller's tensor stays


def use_collectives(mine: int, world: int) -> dict[str, object]:
    x = torch.arange(6.0).view(2, 3).add(10 * mine).requires_grad_()
    everything = gather_with_gradient(x)
    # each rank weighs the rows of rank r with (r + 1) * (mine + 1)
    weights = torch.arange(1.0, world + 1).repeat_interleave(2).unsqueeze(1) * (mine + 1)
    (everything * weights).sum().backward()
    flags = gather(torch.tensor([mine == 1, True]))
    return {
        "place": (rank(), world_size()),
        "everything": everything.detach(),
        "gradient": x.grad,
        "flags": flags,
        "plain": gather(x.T.detach()),  # not contiguous
        "detached": gather(x).requires_grad,
        "total": all_reduce_sum(torch.tensor([float(mine), 1.0])),
    }


def send_objects(mine: int) -> dict[str, object]:
    refused: list[str] = []
    distributed_c10d._object_to_tensor = distributed_c10d._tensor_to_object = lambda *args: refused.append("pickle")
    rows = [{"id": "größer \udcff", "score": 0.1 + mine, "none": None, "list": [1, math.inf]}] * (3 * mine)
    cannot = None
    try:
        gather_objects({1, 2})
    except TypeError as error:
        cannot = str(error)
    return {
        "gathered": gather_objects(rows),
        "named": gather_objects(NonFiniteCause(mine, "a", ["b"])),
        "path": broadcast_object(Path("/runs") / str(mine)),
        "from": broadcast_object({"x": mine} if mine else None, src=1),
        "cannot": cannot,
        "refused": refused,
    }


def test_objects_are_sent_without_pickles() -> None:
    """Of any size, also nothing; floats come back to the last bit."""
    row = {"id": "größer \udcff", "score": 1.1, "none": None, "list": [1, math.inf]}
    for result in on_ranks(2, send_objects):
        assert result["gathered"] == [[], [row] * 3]
        assert result["named"] == [[0, "a", ["b"]], [1, "a", ["b"]]]
        assert result["path"] == "/runs/0" and result["from"] == {"x": 1}
        assert "set" in result["cannot"] and result["refused"] == []
    assert gather_objects({1}) == [{1}] and broadcast_object(Path("a")) == Path("a")


@pytest.mark.parametrize("world", [2, 3])
def test_collectives(world: int) -> None:
    rows = [torch.arange(6.0).view(2, 3) + 10 * r for r in range(world)]
    for mine, result in enumerate(on_ranks(world, use_collectives, world)):
        assert result["place"] == (mine, world)
        assert torch.equal(result["everything"], torch.cat(rows))
        assert torch.equal(result["plain"], torch.cat([part.T for part in rows]))
        assert result["detached"] is False
        assert result["flags"].tolist() == [flag for r in range(world) for flag in (r == 1, True)]
        assert result["total"].tolist() == [sum(range(world)), world]
        # what every rank requests of a row comes back to its owner, summed
        assert torch.equal(result["gradient"], torch.full((2, 3), (mine + 1.0) * sum(range(1, world + 1))))


class Step(nn.Module):
    """What `LitModel` makes of a batch: each task's sum over the count of all ranks, times their number."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, counts: dict[str, Tensor]) -> Tensor:
        losses = self.model.losses(batch)
        return sum(loss / counts[name].clamp(min=1) for name, (loss, _) in losses.items()) * world_size()


def train_on_rank(mine: int, rows: Sequence[Rows], fusion: str | None, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Two steps, because DDP complains of a parameter without a gradient at the second."""
    model = make_model(tasks=tasks, fusion=fusion)
    (batch,) = attach_global_batch([make_batch(*rows[mine], first=first_of(rows, mine))], model.named_tasks())
    # tiny buckets: their sums take turns with the gathering of the contrastive task
    wrapped = DistributedDataParallel(Step(model), bucket_cap_mb=0.001, gradient_as_bucket_view=True)
    counts = {name: all_reduce_sum(task.count(batch)) for name, task in model.named_tasks().items()}
    for _ in range(2):
        model.zero_grad()
        wrapped(batch, counts).backward()
    return {**{f"count of {name}": count for name, count in counts.items()}, **gradients(model)}


def first_of(rows: Sequence[Rows], rank: int) -> int:
    """The number of the first row of a rank."""
    return sum(len(part[0]) for part in rows[:rank])


def train_alone(rows: Sequence[Rows], fusion: str | None, tasks: Sequence[str]) -> dict[str, Tensor]:
    """One process that sees all rows together."""
    model = make_model(tasks=tasks, fusion=fusion)
    batch = make_batch(*([key for part in rows for key in part[side]] for side in range(3)))
    sums = model.losses(batch)
    sum(loss / count.clamp(min=1) for loss, count in sums.values()).backward()
    return {**{f"count of {name}": count for name, (_, count) in sums.items()}, **gradients(model)}


def gradients_on_rank(mine: int, rows: Sequence[Rows]) -> dict[str, dict[str, Tensor]]:
    """With every fusion."""
    return {fusion: train_on_rank(mine, rows, fusion, TASKS[1:2]) for fusion in FUSIONS}


def test_every_fusion_with_a_rank_of_texts_and_a_rank_of_pictures() -> None:
    rows = [TEXT_ONLY, IMAGE_ONLY]
    expected = {fusion: train_alone(rows, fusion, TASKS[1:2]) for fusion in FUSIONS}
    for result in on_ranks(2, gradients_on_rank, rows):
        for fusion, values in expected.items():
            for name, value in values.items():
                torch.testing.assert_close(
                    result[fusion][name],
                    value,
                    rtol=1e-6,
                    atol=1e-6,
                    msg=lambda text, at=(fusion, name): f"{at}: {text}",
                )


@pytest.mark.parametrize(
    ("rows", "fusion", "tasks"),
    [
        pytest.param([TEXT_ONLY, IMAGE_ONLY], "cross_attn", TASKS, id="a modality each"),
        pytest.param([TEXT_ONLY, IMAGE_ONLY], "concat", TASKS, id="a modality each, concat"),
        pytest.param([BOTH, FILLERS], "cross_attn", TASKS, id="a rank with fillers alone"),
        pytest.param([MIXED, BOTH, TEXT_ONLY], "cross_attn", TASKS, id="three ranks"),
        pytest.param([IMAGE_ONLY, MIXED, BOTH], None, TASKS[:1], id="contrastive alone"),
        pytest.param([FILLERS, FILLERS], "concat", TASKS, id="nothing at all"),
    ],
)
def test_gradients_of_real_ranks_are_those_of_one_process(
    rows: list[Rows], fusion: str | None, tasks: Sequence[str]
) -> None:
    expected = train_alone(rows, fusion, tasks)
    for result in on_ranks(len(rows), train_on_rank, rows, fusion, tasks):
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                result[name], value, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
    learned = any(value.any() for name, value in expected.items() if not name.startswith("count"))
    assert learned == (rows != [FILLERS, FILLERS])


def compare_around(mine: int, rows: list[Rows], exchange: str, chunk: int) -> dict[str, Tensor]:
    """Gradients of the vectors of a rank, of the temperature and of the bias."""
    task = make_tasks(["contrastive"], loss="sigmoid", exchange=exchange, chunk_size=chunk)["contrastive"].double()
    batch = make_batch(*rows[mine])
    generator = torch.Generator().manual_seed(mine)
    vectors = {m: torch.randn(len(batch), 8, generator=generator, dtype=torch.double) for m in ("image", "text")}
    leaves = {m: F.normalize(v, dim=1).requires_grad_() for m, v in vectors.items()}
    loss, count = task.loss(leaves, batch)
    loss.backward()
    assert task.bias is not None and task.bias.grad is not None
    results = {m: leaf.grad for m, leaf in leaves.items()} | {"loss": loss.detach(), "count": count}
    return results | {"scale": task.log_scale.grad, "bias": task.bias.grad}


@pytest.mark.parametrize(("rows", "chunk"), [([MIXED, BOTH], 1024), ([MIXED, BOTH, IMAGE_ONLY], 2)])
def test_vectors_that_go_round_give_the_gradients_of_all_at_once(rows: list[Rows], chunk: int) -> None:
    full = on_ranks(len(rows), compare_around, rows, "gather", 1024)
    for result, expected in zip(on_ranks(len(rows), compare_around, rows, "ring", chunk), full, strict=True):
        assert any(value.any() for value in expected.values())
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=1e-10, atol=1e-10, msg=name)
