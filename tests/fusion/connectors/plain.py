"""A connector against its formula: one media item at a time, from valid tokens only, values and gradients."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmtrain.types import Features
from tests.plain_attention import make_random

IN_DIM, DIM, LENGTH = 4, 6, 5


def assert_is(connector: nn.Module, plain: Callable[[Tensor], Tensor], lengths: list[int]) -> None:
    """`lengths` are the output lengths for media of 5, 2, 0 and 1 valid tokens."""
    make_random(connector)
    mask = torch.zeros(4, LENGTH, dtype=torch.bool)
    mask[0], mask[1, [0, 3]], mask[3, 2] = True, True, True
    tokens = torch.randn(4, LENGTH, IN_DIM, dtype=torch.float64, requires_grad=True)
    out, valid = connector(Features(tokens, mask))
    assert valid.sum(dim=1).tolist() == lengths
    weight, total = torch.randn_like(out), out.new_zeros(())
    for row in (0, 1, 3):
        expected = plain(tokens[row][mask[row]])
        torch.testing.assert_close(out[row][valid[row]], expected, rtol=0, atol=1e-11)
        total = total + (expected * weight[row][valid[row]]).sum()
    leaves = {"tokens": tokens, **dict(connector.named_parameters())}
    mine = torch.autograd.grad((out[valid] * weight[valid]).sum(), list(leaves.values()))
    reference = torch.autograd.grad(total, list(leaves.values()))
    for name, one, other in zip(leaves, mine, reference, strict=True):
        assert one.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    dirty = tokens.detach().masked_fill(~mask.unsqueeze(2), torch.nan)
    assert torch.equal(connector(Features(dirty, mask)).tokens[valid], out[valid])
