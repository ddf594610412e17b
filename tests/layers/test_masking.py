"""Masked positions: how many, which, and that in evaluation they depend only on the row."""

import pytest
import torch

from mmtrain.layers.masking import hidden_places, num_hidden, steady_noise


@pytest.mark.parametrize("share", [0.15, 0.5, 0.75, 1.0])
def test_the_share_of_each_row_is_hidden_and_one_at_least(share: float) -> None:
    allowed = torch.arange(20) < torch.tensor([[20], [7], [1], [0]])
    chosen = hidden_places(allowed, share, torch.rand(4, 20))
    expected = [max(round(20 * share), 1), max(round(7 * share), 1), 1, 0]
    assert num_hidden(allowed, share).tolist() == chosen.sum(dim=1).tolist() == expected
    assert not (chosen & ~allowed).any()


def test_those_with_the_least_noise_are_hidden() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.2]])
    allowed = torch.tensor([[True, False, True, True]])
    assert hidden_places(allowed, 0.67, noise).tolist() == [[False, False, True, True]]


def test_steady_noise_is_even_and_knows_row_place_and_salt_alone() -> None:
    noise = steady_noise(torch.arange(2000), 50, 1)
    assert noise.min() >= 0.0 and noise.max() < 1.0
    shares = torch.histc(noise.flatten(), bins=10, min=0, max=1) / noise.numel()
    torch.testing.assert_close(shares, torch.full((10,), 0.1, dtype=torch.double), atol=0.005, rtol=0)
    assert torch.equal(steady_noise(torch.tensor([7, 3]), 20, 1), noise[[7, 3], :20])
    assert (steady_noise(torch.arange(50), 50, 2) != noise[:50]).float().mean() > 0.99
    for pair in (noise[:-1].flatten(), noise[1:].flatten()), (noise[:, :-1].flatten(), noise[:, 1:].flatten()):
        assert abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 0.02
    assert steady_noise(torch.tensor([-1, 2**40]), 3, 1).isfinite().all()
