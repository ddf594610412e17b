"""Signed square root and l2 norm against the formula, and their gradient at zero."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.layers.power_norm import EPS, power_norm


def plain(x: Tensor) -> Tensor:
    rooted = torch.stack([torch.stack([v / (abs(v) + EPS) ** 0.5 for v in row]) for row in x])
    return rooted / torch.stack([sum(v**2 for v in row) ** 0.5 for row in rooted])[:, None]


def test_values_and_gradients_are_those_of_the_formula() -> None:
    x = (torch.randn(4, 5, dtype=torch.float64) * torch.tensor([[1.0], [100.0], [1e-3], [1e-6]])).requires_grad_()
    out, expected = power_norm(x), plain(x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)
    weight = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weight).sum(), x)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=0)


def test_it_is_the_signed_square_root_where_that_is_smooth() -> None:
    x = torch.randn(6, 5, dtype=torch.float64)
    x = torch.where(x.abs() < 0.01, 0.01, x).requires_grad_()
    out, expected = power_norm(x), F.normalize(x.sign() * x.abs().sqrt(), dim=-1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-14)
    weight = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * weight).sum(), x)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(mine, reference, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_zeros_stay_zeros_and_no_gradient_is_above_the_bound(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 4.0, -9.0], [0.0, -0.0, 1e-30]], dtype=dtype, requires_grad=True)
    out = power_norm(x)
    assert out.dtype is dtype and not out[0].any() and not out[:, 0].any() and out.isfinite().all()
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[:2].abs().max() <= 1.01 * EPS**-0.5


def test_it_does_not_depend_on_what_stands_beside() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(power_norm(x)[1, 2], power_norm(x[1, 2]), rtol=0, atol=1e-15)
