"""Precision for gradients of very different lengths: against exact steps, and for conflicts."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmtrain.balance.aligned import Aligned
from mmtrain.balance.cagrad import CAGrad
from mmtrain.balance.gradvac import GradVac
from mmtrain.balance.imtl_g import IMTLG
from mmtrain.balance.mgda import MGDA
from mmtrain.balance.nash import Nash
from mmtrain.balance.pcgrad import PCGrad
from mmtrain.balance.upgrad import UPGrad
from tests import exact_steps
from tests.task_gradients import FakeGradients

ON = {"gradients_of": "parameters"}
RATIOS = [1.0, 1e2, 1e3, 1e4, 4.5e4, 1e5, 1e6, 1e-6]
EXACT = {
    "cagrad": (lambda: CAGrad(**ON, c=0.5), lambda jacobian: exact_steps.cagrad(jacobian, 0.5)),
    "cagrad, c = 2": (lambda: CAGrad(**ON, c=2.0), lambda jacobian: exact_steps.cagrad(jacobian, 2.0)),
    "upgrad": (lambda: UPGrad(**ON), exact_steps.upgrad),
    "mgda": (lambda: MGDA(**ON), exact_steps.mgda),
}
RULES: dict[str, Any] = {
    **{name: make for name, (make, _) in EXACT.items()},
    "aligned": lambda: Aligned(**ON, scale_mode="min"),
    "imtl_g": lambda: IMTLG(**ON),
    "nash": lambda: Nash(**ON, update_every=1, max_norm=None),
    "pcgrad": lambda: PCGrad(**ON),
    "gradvac": lambda: GradVac(**ON, tasks=["0", "1", "2"], beta=0.1),
}


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def weights_of(rule: Any, jacobian: Tensor) -> Tensor:
    return rule.weights(FakeGradients([1.0] * len(jacobian), jacobian, names=names(len(jacobian))))


def step_of(rule: Any, jacobian: Tensor) -> np.ndarray:
    return (jacobian.T @ weights_of(rule, jacobian)).numpy()


def directions(count: int, seed: int, dim: int = 6) -> Tensor:
    """Return (count, dim), rows of length 1."""
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return drawn / drawn.norm(dim=1, keepdim=True)


def with_lengths(rows: Tensor, ratio: float) -> Tensor:
    """Scale rows to lengths 1, 2, 3 ..., and the last to `ratio`."""
    lengths = torch.arange(1, len(rows) + 1, dtype=torch.double)
    lengths[-1] = ratio
    return rows * lengths.unsqueeze(1)


def distance(step: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(step - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", EXACT)
def test_the_step_is_exact_however_long_a_gradient_is(name: str, ratio: float) -> None:
    make, exact = EXACT[name]
    for seed in range(10):
        jacobian = with_lengths(directions(3 + seed % 2, seed), ratio)
        assert distance(step_of(make(), jacobian), exact(jacobian)) < 1e-7, seed


@pytest.mark.parametrize("name", EXACT)
def test_the_step_is_exact_where_all_lengths_differ(name: str) -> None:
    make, exact = EXACT[name]
    for seed in range(5):
        spread = 10 ** (6 * torch.rand(4, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.double) - 3)
        jacobian = directions(4, seed) * spread
        assert distance(step_of(make(), jacobian), exact(jacobian)) < 1e-7, seed


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("ratio", [1.0, 1e6])
@pytest.mark.parametrize("name", RULES)
def test_the_step_grows_with_all_gradients(name: str, ratio: float, scale: float) -> None:
    """As in half precision or of features. Only the length of Nash-MTL's step does not change."""
    jacobian = with_lengths(directions(3, seed=4), ratio)
    expected = step_of(RULES[name](), jacobian) * (1 if name == "nash" else scale)
    assert distance(step_of(RULES[name](), scale * jacobian), expected) < 1e-7


# ------------------------------------------------------------ conflicts


def hardest(step: np.ndarray, jacobian: Tensor) -> float:
    """Return the smallest cosine between a gradient and the step; 0 for a step of rounding size."""
    rows = jacobian.numpy()
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    lengths = np.linalg.norm(rows, axis=1)
    length = np.linalg.norm(step)
    return 0.0 if length < 1e-9 * lengths.max() else float((rows @ step / lengths).min() / length)


def kind_of(name: str, count: int) -> Tensor:
    rows = directions(count, seed=count, dim=12)
    if name == "nearly parallel":
        rows[1] = rows[0] + 1e-4 * rows[1]
    elif name == "nearly opposite":
        rows[1] = -rows[0] + 1e-4 * rows[1]
    elif name == "opposite":
        rows[1] = -rows[0]
    elif name == "identical":
        rows[1] = rows[0]
    elif name == "one missing":
        rows[0] = 0.0
    elif name == "few dimensions":
        rows[:, 2:] = 0.0
    return rows


KINDS = ["random", "nearly parallel", "nearly opposite", "opposite", "identical", "one missing", "few dimensions"]


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["upgrad", "mgda"])
def test_no_task_is_hurt(name: str, kind: str, ratio: float) -> None:
    for count in range(2, 9):
        jacobian = with_lengths(kind_of(kind, count), ratio)
        assert hardest(step_of(RULES[name](), jacobian), jacobian) > -1e-6, count


@pytest.mark.parametrize("ratio", [1.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_cagrad_stays_near_the_mean(kind: str, ratio: float) -> None:
    for count in range(2, 9):
        jacobian = with_lengths(kind_of(kind, count), ratio)
        there = jacobian[jacobian.norm(dim=1) > 0]
        weights = weights_of(CAGrad(**ON, c=0.5), there)
        mean = there.mean(dim=0)
        assert (there.T @ weights - mean).norm() <= 0.5 * mean.norm() * (1 + 1e-6)
        assert weights.any()


@pytest.mark.parametrize("name", RULES)
def test_no_gradient_at_all_gives_finite_weights(name: str) -> None:
    weights = weights_of(RULES[name](), torch.zeros(3, 4, dtype=torch.double))
    assert weights.isfinite().all() and weights.any()


# ------------------------------------------------------------ no zero steps


@pytest.mark.parametrize("ratio", RATIOS)
def test_cagrad_takes_a_step_whatever_the_lengths(ratio: float) -> None:
    for seed in range(20):
        assert weights_of(CAGrad(**ON, c=0.5), with_lengths(directions(3, seed), ratio)).min() > 0


def test_cagrad_takes_the_nearest_step_where_some_mixture_is_0() -> None:
    """Among all steps that leave the first two losses unchanged, the nearest is the mean itself."""
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.double)
    assert step_of(CAGrad(**ON, c=0.5), jacobian) == pytest.approx([0.0, 1 / 3], abs=1e-9)


def test_cagrad_is_the_mean_where_the_mean_is_0() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.double)
    assert weights_of(CAGrad(**ON, c=0.5), jacobian).tolist() == [0.5, 0.5]


# ------------------------------------------------------------ the other rules


@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e8, 1e-8])
def test_imtl_g_is_as_long_along_every_gradient(ratio: float) -> None:
    for seed in range(5):
        jacobian = with_lengths(directions(3, seed), ratio)
        along = jacobian @ torch.from_numpy(step_of(IMTLG(**ON), jacobian)) / jacobian.norm(dim=1)
        torch.testing.assert_close(along, along[0].expand(3), rtol=1e-9, atol=0)


@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e8, 1e-8])
def test_gradvac_turns_gradients_of_any_length(ratio: float) -> None:
    """With targets of 0 it is a projection, here of the gradients themselves."""
    for seed in range(5):
        jacobian = with_lengths(directions(3, seed, dim=3), ratio)
        generator = torch.Generator().manual_seed(7)
        expected = torch.zeros(3, dtype=torch.double)
        for i, gradient in enumerate(jacobian):
            turned, others = gradient, [j for j in range(3) if j != i]
            for place in torch.randperm(2, generator=generator).tolist():
                other = jacobian[others[place]]
                turned = turned - (turned @ other).clamp(max=0.0) / (other @ other) * other
            expected = expected + turned
        assert distance(step_of(GradVac(**ON, tasks=names(3), beta=0.0), jacobian), expected.numpy()) < 1e-12


@pytest.mark.parametrize("mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e8, 1e-8])
def test_aligned_makes_all_singular_values_alike(ratio: float, mode: Any) -> None:
    jacobian = with_lengths(directions(3, seed=2), ratio)
    left, values, right = torch.linalg.svd(jacobian, full_matrices=False)
    scale = {"min": values[-1], "median": values[1], "rmse": values.square().mean().sqrt()}[mode]
    expected = (scale * left @ right).mean(dim=0).numpy()
    assert distance(step_of(Aligned(**ON, scale_mode=mode), jacobian), expected) < 1e-6


def test_a_gradient_that_is_short_is_one() -> None:
    jacobian = with_lengths(directions(3, seed=1), 1e-10)
    assert weights_of(MGDA(**ON), jacobian)[-1] == pytest.approx(1.0)
    assert math.isclose(weights_of(Nash(**ON, update_every=1, max_norm=None), jacobian)[-1] * 1e-10, 1.0, rel_tol=0.9)
