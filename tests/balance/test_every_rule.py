"""Invariants of every file in configs/balance/: finite weights for any input, and equal weights for equal input."""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, nn

from mmtrain.config.compose import config_dir
from tests.task_gradients import JACOBIANS, NAMES, FakeGradients, jacobian

FILES = sorted(path.stem for path in (config_dir() / "balance").glob("*.yaml"))
LOSSES = {
    "usual": (1.0, 2.0, 0.5),
    "one missing": (1.0, 0.0, 0.5),
    "all missing": (0.0, 0.0, 0.0),
    "negative": (-1.0, 2.0, -30.0),
    "tiny and huge": (1e-300, 1e30, 1.0),
}


def rule(name: str, tasks: Sequence[str] = NAMES) -> Any:
    given = yaml.safe_load((config_dir() / "balance" / f"{name}.yaml").read_text(encoding="utf-8"))
    target = get_object(given.pop("_target_"))
    facts = {"tasks": list(tasks)} if "tasks" in inspect.signature(target).parameters else {}
    return target(**given, **facts)


def step(balance: Any, look: FakeGradients, after: FakeGradients | None = None) -> Tensor:
    weights = balance.weights(look)
    own = balance.own_loss(look.losses())
    if own is not None:
        for parameter, gradient in zip(
            balance.parameters(), torch.autograd.grad(own, list(balance.parameters())), strict=True
        ):
            assert gradient.isfinite().all()
            parameter.data -= 0.1 * gradient
    balance.after_step(after or look)
    return weights


def looks() -> list[FakeGradients]:
    """Return a random walk of noisy steps; one task is missing from every third."""
    generator = torch.Generator().manual_seed(3)
    results = []
    for number in range(12):
        gradients = torch.randn(3, 5, generator=generator, dtype=torch.double)
        losses = (torch.rand(3, generator=generator) + 0.1).tolist()
        if number % 3 == 2:
            gradients[1], losses[1] = 0.0, 0.0
        results.append(FakeGradients(losses, gradients, seed=number))
    return results


def walk(balance: Any, steps: list[FakeGradients]) -> list[Tensor]:
    results = []
    for look in steps:
        results.append(step(balance, look, FakeGradients([0.9 * v for v in look.values], look.gradients)))
        balance.end_epoch(dict(zip(NAMES, look.values, strict=True)))
    return results


def each(test: Callable[..., None]) -> Any:
    return pytest.mark.parametrize("name", FILES)(test)


@each
@pytest.mark.parametrize("kind", JACOBIANS)
def test_weights_are_finite_for_any_gradients(name: str, kind: str) -> None:
    balance = rule(name)
    for _ in range(3):
        weights = step(balance, FakeGradients(gradients=jacobian(kind)))
        assert weights.shape == (3,) and weights.dtype == torch.double
        assert not weights.requires_grad
        assert weights.isfinite().all()
        assert weights.abs().max() < 1e5


@each
@pytest.mark.parametrize("kind", LOSSES)
def test_weights_are_finite_for_any_losses(name: str, kind: str) -> None:
    balance = rule(name)
    for _ in range(3):
        assert step(balance, FakeGradients(LOSSES[kind])).isfinite().all()
        balance.end_epoch(dict(zip(NAMES, LOSSES[kind], strict=True)))
    assert step(balance, FakeGradients()).isfinite().all()


@each
def test_a_step_that_overflows_spoils_no_later_one(name: str) -> None:
    """Such steps occur in half precision, and are skipped."""
    for bad in (float("nan"), float("inf")):
        balance, gradients = rule(name), jacobian("conflicting")
        gradients[0, 1] = bad
        balance.weights(FakeGradients((bad, 1.0, 1.0), gradients))
        balance.after_step(FakeGradients((bad, 1.0, 1.0), gradients))
        assert step(balance, FakeGradients()).isfinite().all()
        assert step(balance, FakeGradients()).isfinite().all()


@each
def test_one_task_alone_is_trained(name: str) -> None:
    look = FakeGradients([0.5], torch.tensor([[3.0, -1.0]], dtype=torch.double), names=["a"])
    (weight,) = rule(name, ["a"]).weights(look).tolist()
    assert 0 < weight < 10


@each
def test_a_run_that_goes_on_goes_on_as_it_was(name: str) -> None:
    full, half, rest = rule(name), rule(name), rule(name)
    expected = walk(full, looks())
    assert isinstance(full, nn.Module)
    walk(half, looks()[:5])
    # serialize and load: plain numbers, lists and dicts
    rest.load_extra_state(json.loads(json.dumps(half.extra_state())))
    rest.load_state_dict(half.state_dict())
    for weights, again in zip(expected[5:], walk(rest, looks()[5:]), strict=True):
        assert torch.equal(weights, again)
    assert rest.values() == full.values()


@each
def test_the_global_random_state_stays(name: str) -> None:
    balance = rule(name)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    step(balance, FakeGradients())
    assert torch.equal(torch.rand(3), expected)


@each
def test_what_it_logs_is_a_number_for_each_name(name: str) -> None:
    balance = rule(name)
    step(balance, FakeGradients())
    assert all(isinstance(value, float) for value in balance.values().values())
