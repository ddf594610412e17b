"""A single value per channel uses the running statistics, without an update; all else equals torch."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.layers.batch_norm import use_running_stats_for_single_values
from tests.batches import assert_same_bits

SHAPES = {nn.BatchNorm1d: (1, 4), nn.BatchNorm2d: (1, 4, 1, 1), nn.BatchNorm3d: (1, 4, 1, 1, 1)}


def make(kind: type[_BatchNorm], **options: bool) -> _BatchNorm:
    torch.manual_seed(0)
    norm = kind(4, **options)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    use_running_stats_for_single_values(norm)
    return norm


@pytest.mark.parametrize("kind", [*SHAPES, nn.SyncBatchNorm])
def test_a_single_value_is_that_of_evaluation(kind: type[_BatchNorm]) -> None:
    norm, x = make(kind), torch.randn(SHAPES.get(kind, (1, 4, 1)), requires_grad=True)
    before = deepcopy(norm.state_dict())
    expected = deepcopy(norm).eval()(x)
    assert torch.equal(norm(x), expected) and norm.training
    assert_same_bits(norm.state_dict(), before)


def test_the_gradient_is_that_of_the_statistics_of_the_call() -> None:
    """A later call of the step updates the running statistics before the backward pass reads them."""
    norm, x = make(nn.BatchNorm2d), torch.randn(1, 4, 1, 1, requires_grad=True)
    expected = norm.weight / (norm.running_var + norm.eps).sqrt()
    out = norm(x)
    norm(10 * torch.randn(8, 4, 3, 3))
    out.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), expected.detach())


def test_several_values_are_those_of_torch() -> None:
    norm, x = make(nn.BatchNorm2d), torch.randn(1, 4, 1, 2)
    plain = nn.BatchNorm2d(4)
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm(x), plain(x))
    assert_same_bits(norm.state_dict(), plain.state_dict())
    assert norm.num_batches_tracked == plain.num_batches_tracked


def test_a_norm_in_evaluation_stays_in_evaluation() -> None:
    norm, x = make(nn.BatchNorm2d).eval(), torch.randn(1, 4, 1, 1)
    norm(x)
    assert not norm.training


def test_without_running_statistics_it_gives_its_bias() -> None:
    """The result is the same as for any number of equal values."""
    norm, x = make(nn.BatchNorm2d, track_running_stats=False), torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(norm(x).detach().flatten(), norm.bias.detach(), rtol=0, atol=1e-3)
    three = torch.randn(3, 4, 1, 1)
    assert torch.equal(norm(three), F.batch_norm(three, None, None, norm.weight, norm.bias, True))


def test_an_error_in_the_norm_leaves_it_as_it_was() -> None:
    norm = make(nn.BatchNorm2d)
    mean = norm.running_mean
    with pytest.raises(ValueError, match="expected 4D input"):
        norm(torch.randn(1, 4, 1))
    assert norm.training and norm.running_mean is mean


def test_a_copy_has_its_own_statistics() -> None:
    norm = make(nn.BatchNorm2d)
    copy = deepcopy(norm)
    copy(torch.randn(1, 4, 1, 1))
    copy(torch.randn(2, 4, 1, 1))
    assert copy.num_batches_tracked == 1 and norm.num_batches_tracked == 0
    assert copy.training and norm.training
