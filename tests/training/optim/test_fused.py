"""optimizer.fused: the weights of the optimizer that is not, also where ranks keep shares, and after going on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from mmtrain.build import _optimizer, compose
from mmtrain.training.fsdp.shard import shard
from tests.config.test_rules import faults
from tests.ranks import on_ranks


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x).tanh()
        return x.sum()


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """As a LitModel makes them."""
    kinds = [[p for p in model.parameters() if isinstance(p, DTensor) is shared] for shared in (False, True)]
    return [{"params": similar} for similar in kinds if similar]


def made(model: nn.Module, fused: str) -> torch.optim.Optimizer:
    return _optimizer(compose([f"optimizer.fused={fused}", "optimizer.lr=0.1"]).optimizer, groups_of(model))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(step)
        model(torch.randn(5, 4)).backward()
        optimizer.step()


def whole(model: nn.Module) -> list[Tensor]:
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]


def test_auto_is_no_on_a_cpu_and_all_give_the_same_weights() -> None:
    weights = {}
    for fused in ("auto", "false", "true"):
        model = Blocks()
        optimizer = made(model, fused)
        assert [group["fused"] for group in optimizer.param_groups] == [fused == "true"]
        train(model, optimizer, steps=4)
        weights[fused] = whole(model)
    assert all(torch.equal(a, b) for a, b in zip(weights["auto"], weights["false"], strict=True))
    torch.testing.assert_close(weights["true"], weights["false"])


@pytest.mark.gpu
def test_auto_is_yes_on_a_gpu() -> None:
    assert made(Blocks().cuda(), "auto").param_groups[0]["fused"] is True


@pytest.mark.parametrize("now", ["true", "false"])
def test_a_run_goes_on_with_its_own_choice(now: str) -> None:
    calm, model = Blocks(), Blocks()
    train(calm, made(calm, now), steps=4)
    before = made(model, {"true": "false", "false": "true"}[now])
    train(model, before, steps=2)
    after = made(model, now)
    after.load_state_dict(before.state_dict())
    assert after.param_groups[0]["fused"] is (now == "true")
    for step in (2, 3):
        after.zero_grad()
        torch.manual_seed(step)
        model(torch.randn(5, 4)).backward()
        after.step()
    torch.testing.assert_close(whole(model), whole(calm))


def train_shared(mine: int) -> list[Tensor]:
    model = Blocks()
    shard(model, init_device_mesh("cpu", (2,)), gathered_in=None)
    optimizer = made(model, "true")
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    train(model, optimizer, steps=4)
    return [p.clone() for p in whole(model)]


def test_of_ranks_that_keep_shares() -> None:
    alone = Blocks()
    train(alone, made(alone, "false"), steps=4)
    for result in on_ranks(2, train_shared):
        torch.testing.assert_close(result, whole(alone))


def test_another_word_is_refused() -> None:
    (fault,) = faults("optimizer.fused=maybe")
    assert fault.startswith("optimizer.fused=maybe: must be true or false or auto (")
