"""Gradient-based rules against torchjd on the complete Jacobian, and against the properties given in their papers."""

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation
from torchjd.linalg import QuadprogProjector

from mmtrain.balance.aligned import Aligned
from mmtrain.balance.cagrad import CAGrad
from mmtrain.balance.gradvac import GradVac
from mmtrain.balance.imtl_g import IMTLG
from mmtrain.balance.mgda import MGDA
from mmtrain.balance.nash import RIDGE, Nash, bargain
from mmtrain.balance.pcgrad import PCGrad
from mmtrain.balance.upgrad import UPGrad
from tests.task_gradients import JACOBIANS, NAMES, FakeGradients, jacobian

EXACT: dict[str, float] = {"rtol": 1e-10, "atol": 1e-10}
ON = {"gradients_of": "parameters"}

PAIRS = {
    "pcgrad": lambda: (PCGrad(**ON), aggregation.PCGrad()),
    "gradvac": lambda: (GradVac(**ON, tasks=NAMES, beta=0.1), aggregation.GradVac(beta=0.1, eps=0.0)),
    "imtl_g": lambda: (IMTLG(**ON), aggregation.IMTLG()),
    "aligned": lambda: (Aligned(**ON, scale_mode="min"), aggregation.AlignedMTL(scale_mode="min")),
    "rmse": lambda: (Aligned(**ON, scale_mode="rmse"), aggregation.AlignedMTL(scale_mode="rmse")),
}
# torchjd solves these only approximately; tests/balance/test_lengths.py compares them with exact solutions
NEAR = {
    "upgrad": lambda: (UPGrad(**ON), aggregation.UPGrad(projector=QuadprogProjector(reg_eps=1e-9))),
    "cagrad": lambda: (CAGrad(**ON, c=0.5), aggregation.CAGrad(c=0.5)),
    "far cagrad": lambda: (CAGrad(**ON, c=2.0), aggregation.CAGrad(c=2.0)),
    "mean": lambda: (CAGrad(**ON, c=0.0), aggregation.Mean()),
}
ALL = [*PAIRS, "mgda", "upgrad", "cagrad", "nash"]


def make(name: str) -> Any:
    if name == "mgda":
        return MGDA(**ON)
    return Nash(**ON, update_every=1, max_norm=None) if name == "nash" else (PAIRS | NEAR)[name]()[0]


def step_of(rule: Any, gradients: Tensor, seed: int = 7) -> Tensor:
    return gradients.T @ rule.weights(FakeGradients(gradients=gradients, seed=seed))


@pytest.mark.parametrize("kind", ["alike", "conflicting", "identical", "dependent"])
@pytest.mark.parametrize("name", [*PAIRS])
def test_the_step_is_that_of_torchjd_on_the_whole_jacobian(name: str, kind: str) -> None:
    if (name, kind) == ("imtl_g", "dependent"):
        pytest.skip("no step has one length along all; torchjd's nearest depends on how long gradients are")
    rule, reference = PAIRS[name]()
    gradients = jacobian(kind)
    for seed in range(4):
        result = step_of(rule, gradients, seed)
        torch.manual_seed(seed)
        torch.testing.assert_close(result, reference(gradients), **EXACT)
        gradients = gradients + 0.1 * jacobian("alike")


@pytest.mark.parametrize("kind", ["alike", "conflicting", "identical", "dependent"])
@pytest.mark.parametrize("name", [*NEAR])
def test_the_step_is_that_of_torchjd_to_its_solvers_tolerance(name: str, kind: str) -> None:
    rule, reference = NEAR[name]()
    gradients = jacobian(kind)
    torch.testing.assert_close(step_of(rule, gradients), reference(gradients), rtol=2e-3, atol=2e-3)


# ------------------------------------------------------------ tasks without a gradient


@pytest.mark.parametrize("name", ["imtl_g", "aligned", "upgrad"])
def test_a_zero_gradient_changes_nothing_where_torchjd_heeds_it_already(name: str) -> None:
    rule, reference = (PAIRS | NEAR)[name]()
    gradients = jacobian("one missing")
    torch.testing.assert_close(step_of(rule, gradients), reference(gradients), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_a_task_without_a_gradient_takes_nothing_from_the_others(name: str) -> None:
    """The step equals that without the task; for a mean, scaled by the fraction of tasks."""
    missing = jacobian("one missing")
    there = missing[[0, 2]]
    weights = make(name).weights(FakeGradients(gradients=missing))
    alone = make(name)
    if name == "gradvac":
        alone = GradVac(**ON, tasks=["a", "c"], beta=0.1)
    expected = alone.weights(FakeGradients(gradients=there, names=["a", "c"]))
    share = 2 / 3 if name in ("cagrad", "aligned", "rmse", "upgrad") else 1.0
    torch.testing.assert_close(weights[[0, 2]], share * expected, rtol=1e-6, atol=1e-6)
    assert weights[1] == pytest.approx(1.0 if name in ("pcgrad", "gradvac", "nash") else 1 / 3)


@pytest.mark.parametrize("name", ALL)
def test_small_gradients_are_no_zeros(name: str) -> None:
    """Feature gradients are small: a solver with a fixed tolerance would treat them as zero."""
    big, small = step_of(make(name), jacobian("conflicting")), step_of(make(name), jacobian("small"))
    scale = 1.0 if name == "nash" else 1e-4
    torch.testing.assert_close(small, scale * big, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------ properties given in the papers


def test_mgda_finds_the_shortest_vector_between_two_gradients() -> None:
    a, b = jacobian("conflicting")[:2]
    share = ((b - a) @ b / (a - b).square().sum()).clamp(0, 1)
    result = MGDA(**ON).weights(FakeGradients(gradients=torch.stack([a, b]), names=["a", "b"]))
    torch.testing.assert_close(result, torch.stack([share, 1 - share]), **EXACT)


@pytest.mark.parametrize("kind", ["alike", "conflicting"])
def test_imtl_g_is_as_long_along_every_gradient(kind: str) -> None:
    gradients = jacobian(kind)
    along = gradients @ step_of(IMTLG(**ON), gradients) / gradients.norm(dim=1)
    torch.testing.assert_close(along, along[0].expand(3), rtol=1e-9, atol=1e-9)


def test_aligned_makes_all_singular_values_the_least() -> None:
    gradients = jacobian("conflicting")
    left, values, right = torch.linalg.svd(gradients, full_matrices=False)
    expected = (values[-1] * left @ right).mean(dim=0)
    torch.testing.assert_close(step_of(Aligned(**ON, scale_mode="min"), gradients), expected, **EXACT)


@pytest.mark.parametrize("kind", ["conflicting", "opposite", "one missing", "small"])
def test_upgrad_hurts_no_task(kind: str) -> None:
    gradients = jacobian(kind)
    along = gradients @ step_of(UPGrad(**ON), gradients)
    assert along.min() > -1e-10 * gradients.square().sum(dim=1).max()


@pytest.mark.parametrize("c", [0.3, 0.8])
def test_cagrad_helps_the_worst_task_most_of_all_steps_near_the_mean(c: float) -> None:
    gradients = jacobian("conflicting")
    mean = gradients.mean(dim=0)
    step = step_of(CAGrad(**ON, c=c), gradients)
    assert (step - mean).norm() == pytest.approx((c * mean.norm()).item(), rel=1e-4)
    turned = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    others = mean + c * mean.norm() * turned / turned.norm(dim=1, keepdim=True)
    assert (gradients @ step).min() >= (others @ gradients.T).min(dim=1).values.max() - 1e-6


def test_gradvac_turns_a_gradient_to_its_target() -> None:
    a, b = jacobian("conflicting")[:2]
    rule = GradVac(**ON, tasks=["a", "b"], beta=0.0)
    rule.load_extra_state({"targets": [[0.0, 0.6], [-1.0, 0.0]]})
    weights = rule.weights(FakeGradients(gradients=torch.stack([a, b]), names=["a", "b"]))
    assert weights[0] == 1.0
    turned = a + (weights[1] - 1) * b
    assert torch.cosine_similarity(turned, b, dim=0).item() == pytest.approx(0.6)


def test_gradvac_keeps_the_targets_of_a_task_that_a_step_lacks() -> None:
    rule = GradVac(**ON, tasks=NAMES, beta=0.5)
    rule.weights(FakeGradients())
    before = torch.tensor(rule.extra_state()["targets"])
    rule.weights(FakeGradients(gradients=jacobian("one missing")))
    after = torch.tensor(rule.extra_state()["targets"])
    assert torch.equal(after[1], before[1]) and torch.equal(after[:, 1], before[:, 1])
    assert after[0, 2] != before[0, 2]


# ------------------------------------------------------------ Nash


@pytest.mark.parametrize("kind", ["alike", "conflicting", "small"])
def test_nash_solves_the_bargain(kind: str) -> None:
    gradients = jacobian(kind)
    weights = Nash(**ON, update_every=1, max_norm=None).weights(FakeGradients(gradients=gradients))
    assert weights.min() > 0
    torch.testing.assert_close(weights * (gradients @ gradients.T @ weights), torch.ones(3).double(), rtol=0, atol=5e-3)
    assert step_of(Nash(**ON, update_every=1, max_norm=1.0), gradients).norm() == pytest.approx(1.0)


def test_a_bargain_is_exact_but_for_its_ridge() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in range(1, 12):
        gradients = torch.randn(size, 2 + size, generator=generator, dtype=torch.double)
        gramian = gradients @ gradients.T
        weights = bargain(gramian)
        ridged = gramian + RIDGE * torch.diag(gramian.diagonal())
        torch.testing.assert_close(weights * (ridged @ weights), torch.ones(size).double(), **EXACT)


@pytest.mark.parametrize("kind", ["alike", "conflicting"])
def test_nash_is_that_of_torchjd_and_both_see_the_gramian_alone(kind: str) -> None:
    gradients = jacobian(kind)
    values, vectors = torch.linalg.eigh(gradients @ gradients.T)
    root = vectors @ torch.diag(values.clamp(min=0.0).sqrt())
    result = Nash(**ON, update_every=1, max_norm=None).weights(FakeGradients(gradients=gradients))
    for matrix in (gradients, root):
        expected = aggregation.NashMTL(n_tasks=3, max_norm=0.0, optim_niter=100).weighting(matrix)
        torch.testing.assert_close(result, expected, rtol=5e-3, atol=5e-3)


def test_nash_keeps_its_weights_and_does_not_look() -> None:
    rule = Nash(**ON, update_every=3, max_norm=1.0)
    looks = [FakeGradients(gradients=jacobian(kind)) for kind in ("alike", "conflicting", "dependent", "conflicting")]
    weights = [rule.weights(look) for look in looks]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert [look.asked for look in looks] == [["parameters"], [], [], ["parameters"]]


# ------------------------------------------------------------ all rules


@pytest.mark.parametrize("name", ALL)
def test_lengths_and_cosines_of_the_gradients_are_logged(name: str) -> None:
    rule = make(name)
    assert rule.values() == {}
    rule.weights(FakeGradients(gradients=jacobian("conflicting")))
    a, b, c = jacobian("conflicting")
    pairs = {"cosine/a-b": (a, b), "cosine/a-c": (a, c), "cosine/b-c": (b, c)}
    expected = {key: torch.cosine_similarity(*pair, dim=0).item() for key, pair in pairs.items()}
    expected |= {f"gradient_norm/{name}": row.norm().item() for name, row in zip(NAMES, (a, b, c), strict=True)}
    assert rule.values() == pytest.approx(expected)
    rule.weights(FakeGradients(gradients=jacobian("one missing")))
    assert rule.values()["cosine/a-b"] == 0


@pytest.mark.parametrize("rule", [PCGrad(**ON), GradVac(**ON, tasks=NAMES, beta=0.0)])
def test_the_order_is_that_of_the_seed(rule: Any) -> None:
    gradients = jacobian("conflicting")
    steps = [step_of(rule, gradients, seed) for seed in (1, 1, *range(20))]
    assert torch.equal(steps[0], steps[1])
    assert any(not torch.equal(steps[0], other) for other in steps)


@pytest.mark.parametrize("kind", JACOBIANS)
def test_the_weights_of_nash_are_bounded_by_its_ridge(kind: str) -> None:
    gradients = jacobian(kind)
    weights = Nash(**ON, update_every=1, max_norm=None).weights(FakeGradients(gradients=gradients))
    # a.G a + RIDGE |a|^2 = K in cosines
    assert (weights * gradients.norm(dim=1)).square().sum() <= 3 / RIDGE


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        (PCGrad, {"gradients_of": "loss"}, "balance.gradients_of = loss; set it to parameters or features"),
        (CAGrad, {**ON, "c": -1.0}, "balance.c = -1.0; set it to 0 or more"),
        (Aligned, {**ON, "scale_mode": "max"}, "balance.scale_mode = max; set it to min, median or rmse"),
        (GradVac, {**ON, "tasks": NAMES, "beta": 2.0}, "balance.beta = 2.0; set it between 0 and 1"),
        (Nash, {**ON, "update_every": 0, "max_norm": 1.0}, "balance.update_every = 0; set it to 1 or more"),
        (Nash, {**ON, "update_every": 1, "max_norm": 0.0}, "balance.max_norm = 0.0; set it above 0, or to null"),
    ],
)
def test_a_knob_that_makes_no_sense_is_refused(rule: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**given)


@pytest.mark.parametrize("name", ["cagrad", "upgrad", "mgda"])
def test_no_optional_solver_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("cvxpy", "quadprog", "qpsolvers", "torchjd"):
        monkeypatch.setitem(sys.modules, missing, None)
    rule: Any = {"cagrad": partial(CAGrad, c=0.5), "upgrad": UPGrad, "mgda": MGDA}[name](**ON)
    assert step_of(rule, jacobian("conflicting")).isfinite().all()


def test_torchjd_is_imported_only_by_a_rule_that_is_built() -> None:
    code = (
        "import sys, mmtrain.balance.mgda, mmtrain.balance.pcgrad, mmtrain.balance.imtl_g, mmtrain.balance.aligned,"
        " mmtrain.balance.cagrad, mmtrain.balance.upgrad, mmtrain.balance.nash; assert 'torchjd' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
