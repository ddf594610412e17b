"""Ranks that keep shares of the weights: gradients, norms and complete runs are those of ranks that keep everything."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from mmtrain.distributed import all_reduce_sum
from mmtrain.training.fsdp.shard import (
    all_reduce_unsharded,
    blocks_of,
    clip,
    is_sharded,
    keep_shards,
    matrices_of,
    no_gradient_sync,
    norm_of,
    shard,
)
from mmtrain.training.global_batch import attach_global_batch
from tests.batches import make_batch, make_model
from tests.ranks import on_ranks
from tests.test_distributed import BOTH, IMAGE_ONLY, MIXED, TASKS, TEXT_ONLY, Rows, Step, first_of, train_alone
from tests.test_processes import train
from tests.tiny import make_tables

NO_DROPOUT = [
    *("encoder.image.dropout", "encoder.image.drop_path", "encoder.text.dropout", "fusion.dropout"),
    *("task.classification.dropout", "task.captioning.decoder.dropout", "task.contrastive.dropout"),
]


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train_shared(mine: int, rows: list[Rows], tasks: tuple[str, ...], windows: int) -> dict[str, Tensor]:
    """Gradients after a step; each window has the same rows and counts for its part of the step."""
    model = make_model(tasks=tasks, fusion="cross_attn")
    (batch,) = attach_global_batch([make_batch(*rows[mine], first=first_of(rows, mine))], model.named_tasks())
    shard(model, init_device_mesh("cpu", (len(rows),)), gathered_in=None)
    shard(model, init_device_mesh("cpu", (len(rows),)), gathered_in=None)  # is done already
    step = Step(model)
    counts = {name: all_reduce_sum(task.count(batch)) * windows for name, task in model.named_tasks().items()}
    for window in range(windows):
        if window == windows - 1:
            step(batch, counts).backward()
        else:
            with no_gradient_sync(model):
                step(batch, counts).backward()
    all_reduce_unsharded(model)
    results = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = norm_of(list(results.values()))
    clip([p for p in model.parameters() if p.grad is not None], float(norm) / 2, norm)
    with torch.no_grad():
        step(batch, counts)
    assert any(not isinstance(p, DTensor) for block in blocks_of(model) for p in matrices_of(block))
    keep_shards(model)
    assert is_sharded(model)
    assert {id(p) for p in model.parameters() if isinstance(p, DTensor)} == {
        id(p) for block in blocks_of(model) for p in matrices_of(block)
    }
    return {"norm": norm} | {name: whole(g).clone() for name, g in results.items()}


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("rows", [[TEXT_ONLY, IMAGE_ONLY], [MIXED, BOTH, TEXT_ONLY]], ids=["two", "three"])
def test_gradients_are_those_of_one_process(rows: list[Rows], windows: int) -> None:
    alone = {k: v for k, v in train_alone(rows, "cross_attn", TASKS).items() if not k.startswith("count of")}
    norm = torch.nn.utils.get_total_norm(list(alone.values()))
    for result in on_ranks(len(rows), train_shared, rows, TASKS, windows):
        torch.testing.assert_close(result.pop("norm"), norm, rtol=1e-5, atol=1e-6)
        assert result.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(result[name], gradient / 2, rtol=1e-5, atol=1e-6, msg=name)


def test_blocks_are_what_lists_hold() -> None:
    blocks = [nn.Linear(2, 2) for _ in range(4)]
    inner = nn.ModuleList([nn.Linear(2, 2)])
    holder = nn.Sequential(nn.Linear(2, 2), inner)
    model = nn.ModuleDict({"a": nn.ModuleList(blocks[:2]), "b": nn.ModuleList([nn.ModuleList(blocks[2:]), holder])})
    assert blocks_of(model) == [*blocks[:2], holder, *blocks[2:]]
    assert [p.shape for p in matrices_of(blocks[0])] == [(2, 2)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("sharded") / "data")


@pytest.mark.slow(seconds=60)
def test_a_run_goes_on_with_other_ranks_and_strategies(tables: Path, tmp_path: Path) -> None:
    """Two ranks that keep shares, then three, then one process: checkpoints are those of a run that never changed."""
    plain = ["task=[contrastive,classification,captioning]", "optimizer.eps=1e-3", "schedule=constant"]
    plain += [
        "schedule.warmup_ratio=0",
        "data.batch_size=12",
        "encoder.image.checkpointing=true",
        "encoder.text.freeze_until=3",  # no backward pass reshards these blocks
        "trainer.gradient_cache=true",
    ]
    plain += [f"{key}=0" for key in NO_DROPOUT]
    assert train(tables, tmp_path / "calm", "trainer.max_epochs=3", *plain).returncode == 0
    again = ["resume=auto", "resume_allow=[trainer.max_epochs]"]
    for epochs, devices in ((1, 2), (2, 3)):
        shared = [
            "trainer=fsdp",
            "trainer.accelerator=cpu",
            "trainer.accumulate_grad_batches=2",
            f"trainer.devices={devices}",
        ]
        done = train(
            tables, tmp_path / "moved", *shared, f"trainer.max_epochs={epochs}", *again, *plain, forked_ranks=True
        )
        assert done.returncode == 0, done.stderr
    done = train(tables, tmp_path / "moved", "trainer.max_epochs=3", *again, *plain)
    assert done.returncode == 0, done.stderr
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("calm", "moved")
    )
    assert one["global_step"] == two["global_step"]
    for weights in ("state_dict", "current_model_state", "averaging_state"):  # the first are averages
        assert one[weights].keys() == two[weights].keys()
        for name, weight in one[weights].items():
            torch.testing.assert_close(two[weights][name], weight, rtol=1e-4, atol=1e-5, msg=name)
    name = "model.encoders.image.cls_token"
    assert not torch.allclose(one["state_dict"][name], one["current_model_state"][name], rtol=1e-2)
    states = one["optimizer_states"][0], two["optimizer_states"][0]
    assert [g["params"] for g in states[0]["param_groups"]] == [g["params"] for g in states[1]["param_groups"]]
    for number, moments in states[0]["state"].items():
        torch.testing.assert_close(states[1]["state"][number], moments, rtol=1e-3, atol=1e-5)
    for key in ("train/loss", "val/loss"):  # validation is of averages
        losses = [
            [float(row[key]) for row in csv.DictReader((tmp_path / name / "metrics.csv").open()) if row[key]]
            for name in ("calm", "moved")
        ]
        assert len(losses[0]) > 1 and losses[0] == pytest.approx(losses[1], rel=1e-3), key
