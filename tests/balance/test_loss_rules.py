"""Loss-based rules against their papers' formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.balance.dwa import DWA
from mmtrain.balance.famo import FAMO
from mmtrain.balance.gls import GLS
from mmtrain.balance.gradnorm import GradNorm
from mmtrain.balance.imtl_l import IMTLL
from mmtrain.balance.rlw import RLW
from mmtrain.balance.stch import STCH
from mmtrain.balance.uncertainty import Uncertainty
from tests.task_gradients import NAMES, FakeGradients, jacobian

FLOOR = 1e-4
EXACT: dict[str, float] = {"rtol": 1e-10, "atol": 1e-10}


def point() -> Tensor:
    return torch.tensor([0.3, -0.8, 1.1, 0.4], dtype=torch.double, requires_grad=True)


def losses_at(x: Tensor) -> Tensor:
    """Return three positive losses of shared parameters."""
    return torch.stack([x.square().sum() + 0.1, (x[0] - x[1]).exp(), (x * x.flip(0)).sum().cosh()])


def look_at(x: Tensor) -> FakeGradients:
    gradients = torch.stack([torch.autograd.grad(losses_at(x)[k], x)[0] for k in range(3)])
    return FakeGradients(losses_at(x).tolist(), gradients)


def step_of(weights: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of the weighted sum."""
    return torch.autograd.grad((weights * losses_at(x)).sum(), x)[0]


# ------------------------------------------------------------ learned weights


def test_uncertainty_has_the_gradients_of_the_papers_loss() -> None:
    balance = Uncertainty(tasks=NAMES, floor=FLOOR)
    balance.log_variances.data = torch.tensor([0.5, -1.0, 0.0])
    x = point()
    sigmas = torch.exp(balance.log_variances.detach().double() / 2).requires_grad_()
    paper = (losses_at(x) / (2 * sigmas**2) + torch.log(sigmas)).sum()
    of_x, of_sigmas = torch.autograd.grad(paper, (x, sigmas))
    torch.testing.assert_close(step_of(balance.weights(look_at(x)), x), of_x, **EXACT)
    own: Any = balance.own_loss(losses_at(x).detach())
    torch.testing.assert_close(own, paper.detach(), check_dtype=True)
    (of_s,) = torch.autograd.grad(own, balance.log_variances)
    # d sigma / d s = sigma / 2
    torch.testing.assert_close(of_s.double(), (of_sigmas * sigmas / 2).detach(), rtol=1e-6, atol=1e-6)


def test_imtl_l_has_the_gradients_of_the_papers_loss() -> None:
    balance = IMTLL(tasks=NAMES, floor=FLOOR)
    balance.log_scales.data = torch.tensor([0.5, -1.0, 0.0])
    x = point()
    s = balance.log_scales.detach().double().requires_grad_()
    paper = (math.e**s * losses_at(x) - s).sum()
    of_x, of_s = torch.autograd.grad(paper, (x, s))
    torch.testing.assert_close(step_of(balance.weights(look_at(x)), x), of_x, **EXACT)
    own: Any = balance.own_loss(losses_at(x).detach())
    torch.testing.assert_close(own, paper.detach())
    (result,) = torch.autograd.grad(own, balance.log_scales)
    torch.testing.assert_close(result.double(), of_s, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rule", "weighted"), [(Uncertainty, 0.5), (IMTLL, 1.0)])
def test_learned_weights_end_where_weighted_losses_are_equal(rule: Any, weighted: float) -> None:
    """A task without a target keeps its weight, and a negative loss counts as the floor."""
    balance = rule(tasks=["a", "b", "missing", "negative"], floor=0.01)
    losses = torch.tensor([4.0, 0.05, 0.0, -3.0], dtype=torch.double)
    (start, *_) = balance.weights(FakeGradients()).tolist()
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        balance.own_loss(losses).backward()
        optimizer.step()
    a, b, lacks, negative = balance.weights(FakeGradients()).tolist()
    assert [a * 4.0, b * 0.05, negative * 0.01] == pytest.approx([weighted] * 3, rel=1e-3)
    assert lacks == start


# ------------------------------------------------------------ epochs, random weights


def test_dwa_follows_the_ratio_of_epochs() -> None:
    balance = DWA(temperature=2.0)
    look = FakeGradients()
    first, second, third = (1.0, 2.0, 4.0), (0.5, 1.9, 4.4), (0.4, 1.0, 4.0)
    assert balance.weights(look).tolist() == [1, 1, 1]
    balance.end_epoch(dict(zip(NAMES, first, strict=True)))
    assert balance.weights(look).tolist() == [1, 1, 1]
    for before, last in ((first, second), (second, third)):
        balance.end_epoch(dict(zip(NAMES, last, strict=True)))
        powers = [math.exp(now / then / 2.0) for then, now in zip(before, last, strict=True)]
        assert balance.weights(look).tolist() == pytest.approx([3 * p / sum(powers) for p in powers], rel=1e-12)


def test_dwa_takes_a_mean_that_is_not_positive_for_no_news() -> None:
    balance = DWA(temperature=2.0)
    balance.end_epoch({"a": 0.0, "b": -1.0})
    balance.end_epoch({"a": 1.0, "b": -2.0, "c": 1.0})
    assert balance.weights(FakeGradients()).tolist() == pytest.approx([1, 1, 1])


def test_rlw_draws_other_weights_for_each_seed_around_one() -> None:
    drawn = torch.stack([RLW().weights(FakeGradients(seed=seed)) for seed in range(4000)])
    torch.testing.assert_close(drawn.sum(dim=1), torch.full((4000,), 3.0, dtype=torch.double))
    torch.testing.assert_close(drawn.mean(dim=0), torch.ones(3, dtype=torch.double), rtol=0, atol=0.05)
    # ratios of weights are exponentials of differences of normal variables
    torch.testing.assert_close((drawn[:, 0] / drawn[:, 1]).log().var().item(), 2.0, rtol=0.1, atol=0.0)
    assert torch.equal(RLW().weights(FakeGradients(seed=5)), drawn[5])


# ------------------------------------------------------------ means


def test_gls_has_the_gradient_of_the_geometric_mean() -> None:
    x = point()
    (expected,) = torch.autograd.grad(losses_at(x).prod() ** (1 / 3), x)
    torch.testing.assert_close(step_of(GLS(floor=FLOOR).weights(look_at(x)), x), expected, **EXACT)


def test_gls_is_the_mean_of_the_losses_there_are() -> None:
    weights = GLS(floor=FLOOR).weights(FakeGradients((2.0, 0.0, 8.0)))
    assert weights.tolist() == pytest.approx([4 / (2 * 2.0), 0, 4 / (2 * 8.0)])
    assert GLS(floor=0.5).weights(FakeGradients((0.5, -3.0, 0.5))).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_stch_has_the_gradient_of_the_smooth_maximum(mu: float) -> None:
    x, nadir = point(), torch.tensor([2.0, 4.0, 0.5], dtype=torch.double)
    balance = STCH(mu=mu, warmup_epochs=2)
    for epoch in ((9.0, 9.0, 9.0), nadir.tolist()):
        assert balance.weights(look_at(x)).tolist() == pytest.approx([1 / 3] * 3)
        balance.end_epoch(dict(zip(NAMES, epoch, strict=True)))
    balance.end_epoch(dict.fromkeys(NAMES, 7.0))
    (expected,) = torch.autograd.grad(mu * torch.log(torch.exp(losses_at(x) / nadir / mu).sum()), x)
    torch.testing.assert_close(step_of(balance.weights(look_at(x)), x), expected, **EXACT)


def test_stch_nears_the_worst_task_alone() -> None:
    weights = STCH(mu=1e-3, warmup_epochs=0).weights(FakeGradients((1.0, 2.0, 0.5)))
    assert weights.tolist() == pytest.approx([0, 1, 0])
    assert STCH(mu=1e-3, warmup_epochs=0).weights(FakeGradients((0.0, -2.0, -1.0))).tolist() == pytest.approx([0, 0, 1])


# ------------------------------------------------------------ weights that follow losses


def test_gradnorm_takes_the_papers_subgradient_step() -> None:
    alpha, lr = 1.5, 0.01
    balance = GradNorm(tasks=NAMES, gradients_of="features", alpha=alpha, lr=lr)
    weights, first = torch.ones(3, dtype=torch.double), None
    for number in range(6):
        gradients = jacobian("conflicting") * torch.tensor([[1.0], [0.3 * number + 0.1], [0.5]], dtype=torch.double)
        look = FakeGradients([1.0 - 0.1 * number, 3.0, 2.0 / (number + 1)], gradients)
        torch.testing.assert_close(balance.weights(look), weights, **EXACT)
        assert look.asked == ["features"]
        first = look.losses() if first is None else first
        w = weights.clone().requires_grad_()
        lengths = torch.stack([(w[k] * gradients[k]).norm() for k in range(3)])
        ratios = look.losses() / first
        targets = (lengths.mean() * (ratios / ratios.mean()) ** alpha).detach()
        (slope,) = torch.autograd.grad((lengths - targets).abs().sum(), w)
        weights = weights - lr * slope
        weights = 3 * weights / weights.sum()
    assert weights.min() > 0
    assert balance.values()["gradient_norm/a"] == pytest.approx(jacobian("conflicting")[0].norm().item())


def test_gradnorm_makes_lengths_equal() -> None:
    balance = GradNorm(tasks=NAMES, gradients_of="parameters", alpha=0.0, lr=1e-3)
    gradients = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.double))
    for _ in range(2000):
        weights = balance.weights(FakeGradients(gradients=gradients))
    torch.testing.assert_close(
        weights * torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 12 / 7).double(), rtol=0.02, atol=0
    )


def test_gradnorm_leaves_alone_the_weight_of_a_task_that_a_step_lacks() -> None:
    balance = GradNorm(tasks=NAMES, gradients_of="parameters", alpha=1.0, lr=0.01)
    missing = FakeGradients((1.0, 0.0, 2.0), jacobian("one missing"))
    balance.weights(missing)
    a, b, c = balance.weights(missing).tolist()
    assert b == 1.0
    assert a + c == pytest.approx(2.0)
    assert a != 1.0
    balance.weights(FakeGradients((1.0, 5.0, 2.0)))
    assert balance.extra_state()["first"] == [1.0, 5.0, 2.0]


def test_famo_follows_the_authors_adam() -> None:
    balance = FAMO(tasks=NAMES, lr=0.025, weight_decay=0.01, floor=FLOOR)
    logits = torch.zeros(3, dtype=torch.double, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=0.01)
    for number in range(20):
        before = FakeGradients([2.0 / (number + 1), 1.0 + 0.1 * number, 0.5])
        after = FakeGradients([1.9 / (number + 1), 1.05 + 0.1 * number, 0.45])
        shares = logits.softmax(dim=0)
        c = 1 / (shares / before.losses()).sum()
        torch.testing.assert_close(balance.weights(before), (c * shares / before.losses()).detach(), **EXACT)
        balance.after_step(after)
        fallen = before.losses().log() - after.losses().log()
        (logits.grad,) = torch.autograd.grad(shares, logits, grad_outputs=fallen)
        adam.step()
    assert logits.softmax(dim=0)[1] > 0.4


def test_famo_leaves_out_a_task_that_a_step_lacks() -> None:
    balance = FAMO(tasks=NAMES, lr=0.025, weight_decay=0.0, floor=FLOOR)
    assert balance.weights(FakeGradients((1.0, 0.0, 4.0))).tolist() == pytest.approx([0.8, 0.0, 0.2])


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        (Uncertainty, {"tasks": NAMES, "floor": 0.0}, "balance.floor = 0.0; set it above 0"),
        (IMTLL, {"tasks": NAMES, "floor": -1.0}, "balance.floor = -1.0; set it above 0"),
        (GLS, {"floor": 0.0}, "balance.floor = 0.0; set it above 0"),
        (DWA, {"temperature": 0.0}, "balance.temperature = 0.0; set it above 0"),
        (STCH, {"mu": 0.0, "warmup_epochs": 1}, "balance.mu = 0.0 and warmup_epochs = 1; set mu above 0"),
        (FAMO, {"tasks": NAMES, "lr": 0.0, "weight_decay": 0.0, "floor": 1.0}, "balance.lr = 0.0, floor = 1.0"),
        (GradNorm, {"tasks": NAMES, "gradients_of": "features", "alpha": 1.0, "lr": 0.0}, "balance.lr = 0.0"),
        (
            GradNorm,
            {"tasks": NAMES, "gradients_of": "loss", "alpha": 1.0, "lr": 1.0},
            "set it to parameters or features",
        ),
    ],
)
def test_a_knob_that_makes_no_sense_is_refused(rule: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**given)
