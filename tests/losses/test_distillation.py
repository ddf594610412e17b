"""Distillation against plain loops: values, gradients, invalid rows."""

import math

import pytest
import torch

from mmtrain.losses.distillation import feature_distance, soft_cross_entropy


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_is_its_formula(temperature: float) -> None:
    torch.manual_seed(0)
    student = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    valid = torch.tensor([True, True, False, True, False])
    total, count = soft_cross_entropy(student, teacher, valid, temperature=temperature)
    expected = torch.zeros((), dtype=torch.double)
    for row in (0, 1, 3):
        p = (teacher[row].detach() / temperature).exp()
        q = (student[row] / temperature).exp()
        p, q = p / p.sum(), q / q.sum()
        expected = expected + temperature**2 * sum(p[c] * (p[c] / q[c]).log() for c in range(4))
    assert count == 3
    torch.testing.assert_close(total, expected)
    (mine,) = torch.autograd.grad(total, student, retain_graph=True)
    torch.testing.assert_close(mine, torch.autograd.grad(expected, student)[0])
    assert torch.autograd.grad(total, teacher, allow_unused=True) == (None,)
    same, _ = soft_cross_entropy(student, student, valid, temperature=temperature)
    assert same.item() == pytest.approx(0.0, abs=1e-12)


def test_distance_of_features_is_one_minus_the_cosine() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 6, dtype=torch.double), torch.randn(4, 6, dtype=torch.double)
    valid = torch.tensor([True, False, True, True])
    total, count = feature_distance(student, teacher, valid)
    rows = [1 - float(s @ t / (s.norm() * t.norm())) for s, t in zip(student, teacher, strict=True)]
    assert total.item() == pytest.approx(rows[0] + rows[2] + rows[3])
    assert count == 3


@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_rows_that_are_not_valid_change_no_bit(garbage: float) -> None:
    valid, result = torch.tensor([True, False, True]), []
    for value in (0.0, garbage):
        torch.manual_seed(0)
        student, teacher = torch.randn(3, 4), torch.randn(3, 4)
        student[1], teacher[1] = value, value
        student.requires_grad_()
        total = sum(
            loss(student, teacher, valid, **options)[0]
            for loss, options in ((soft_cross_entropy, {"temperature": 2.0}), (feature_distance, {}))
        )
        assert isinstance(total, torch.Tensor)
        result.append((total.detach(), *torch.autograd.grad(total, student)))
    assert all(torch.equal(one, other) for one, other in zip(*result, strict=True))
