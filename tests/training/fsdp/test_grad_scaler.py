"""Half precision with shares of weights: steps are those of one process, and an overflow anywhere stops all ranks."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from mmtrain.build import compose
from mmtrain.distributed import world_size
from mmtrain.training.fsdp.grad_scaler import ShardedGradScaler
from mmtrain.training.fsdp.shard import all_reduce_unsharded, clip, norm_of, shard
from mmtrain.training.trainer import trainer_options
from tests.config.test_rules import faults
from tests.ranks import on_ranks

STEPS, BAD = 4, 2  # the step that overflows, from 0
SCALE, CLIP = 256.0, 1.0
ADAM: dict[str, Any] = {"lr": 0.1, "eps": 0.1}


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x).tanh()
        return x.sum()


def rows_of(rank: int, step: int) -> Tensor:
    torch.manual_seed(10 * step + rank)
    return torch.randn(5, 4)


def train(mine: int, fused: bool, bad: str) -> dict[str, Any]:
    """Of a rank; in step `BAD` the loss of the last rank, or its share of the gradients, is too much for 16 bits."""
    model = Blocks()
    shard(model, init_device_mesh("cpu", (world_size(),)), gathered_in=torch.float16)
    kinds = [[p for p in model.parameters() if isinstance(p, DTensor) is shared] for shared in (True, False)]
    optimizer = torch.optim.AdamW([{"params": similar} for similar in kinds], fused=fused, **ADAM)
    scaler = ShardedGradScaler("cpu", init_scale=SCALE)
    results: dict[str, Any] = {"scales": [], "weights": []}
    for step in range(STEPS):
        spoiled = step == BAD and mine == world_size() - 1
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(rows_of(mine, step))
        scaler.scale(loss * (1e9 if spoiled and bad == "loss" else 1.0)).backward()
        for p in kinds[0] if spoiled and bad == "share" else []:
            p.grad.to_local().fill_(torch.inf)
        all_reduce_unsharded(model)
        scale = scaler.get_scale()
        clip(list(model.parameters()), CLIP * scale, norm_of([p.grad for p in model.parameters()]))
        scaler.step(optimizer)
        scaler.update()
        weights = [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]
        results["scales"].append(scale)
        results["weights"].append([w.clone() for w in weights])
    return results


def train_alone() -> list[list[Tensor]]:
    """In 32 bits, without the step that overflows."""
    model = Blocks()
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)
    weights = []
    for step in range(STEPS):
        if step != BAD:
            optimizer.zero_grad()
            (sum(model(rows_of(rank, step)) for rank in range(2)) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    return weights


def train_both(mine: int) -> list[dict[str, Any]]:
    return [train(mine, fused, bad) for fused, bad in ((False, "loss"), (False, "share"), (True, "share"))]


def test_an_overflow_on_one_rank_is_passed_over_by_both() -> None:
    expected = train_alone()
    for of_rank in on_ranks(2, train_both):
        for result in of_rank:
            assert result["scales"] == [SCALE, SCALE, SCALE, SCALE / 2]
            assert all(
                torch.equal(a, b) for a, b in zip(result["weights"][BAD], result["weights"][BAD - 1], strict=True)
            )
            for step in range(STEPS):
                torch.testing.assert_close(result["weights"][step], expected[step], rtol=0, atol=2e-3)
    moved = max(float((a - b).abs().max()) for a, b in zip(expected[0], expected[-1], strict=True))
    assert moved > 0.05  # far more than that


@pytest.mark.parametrize(("strategy", "shared"), [("fsdp", True), ("ddp", False)])
def test_a_trainer_has_it_where_ranks_keep_shares(strategy: str, shared: bool) -> None:
    cfg = compose([f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.precision=16-mixed"])
    plugins = trainer_options(cfg).get("plugins", [])
    assert [isinstance(plugin.scaler, ShardedGradScaler) for plugin in plugins] == ([True] if shared else [])
    trainer = Trainer(**trainer_options(cfg))
    assert trainer.precision_plugin.precision == ("16-mixed" if shared else "bf16-mixed")  # Lightning's choice on a CPU
    assert faults("trainer=fsdp", "trainer.accelerator=gpu", "trainer.precision=16-mixed", "mode=plan") == []
