"""Fixed weights against the sum written out."""

import pytest
import torch

from mmtrain.balance.fixed import Fixed

WEIGHTS = {"a": 1.0, "b": 0.25, "c": 0.0}


@pytest.mark.parametrize("names", [("a",), ("b", "a"), ("a", "b", "c")])
def test_it_is_the_weighted_sum_of_the_losses_there_are(names: tuple[str, ...]) -> None:
    losses = {name: torch.randn((), dtype=torch.float64, requires_grad=True) for name in names}
    total = Fixed(weights=WEIGHTS)(losses)
    assert total.shape == ()
    torch.testing.assert_close(total, sum(WEIGHTS[name] * losses[name] for name in names))
    for name, gradient in zip(names, torch.autograd.grad(total, list(losses.values())), strict=True):
        assert gradient.item() == WEIGHTS[name]


def test_a_shared_parameter_gets_the_weighted_sum_of_gradients() -> None:
    shared = torch.randn(5, dtype=torch.float64, requires_grad=True)
    losses = {"a": shared.sin().sum(), "b": shared.square().sum(), "c": shared.exp().sum()}
    (gradient,) = torch.autograd.grad(Fixed(weights=WEIGHTS)(losses), shared)
    torch.testing.assert_close(gradient, shared.cos() + 0.25 * 2 * shared)


def test_it_has_nothing_to_learn_or_to_save() -> None:
    assert not list(Fixed(weights=WEIGHTS).parameters())
    assert not Fixed(weights=WEIGHTS).state_dict()


def test_a_task_without_a_weight_is_found_out() -> None:
    with pytest.raises(KeyError, match="d"):
        Fixed(weights=WEIGHTS)({"d": torch.zeros(())})
