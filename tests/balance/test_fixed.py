"""Fixed weights are ones, without parameters or state."""

import torch

from mmtrain.balance.fixed import Fixed
from tests.task_gradients import FakeGradients


def test_every_task_counts_with_its_own_weight_alone() -> None:
    step = FakeGradients(names=["a", "b"])
    balance = Fixed()
    assert balance.weights(step).tolist() == [1.0, 1.0]
    assert step.asked == []  # nothing is computed for it
    assert balance.own_loss(torch.ones(2)) is None
    assert not list(balance.parameters()) and balance.extra_state() == {} and balance.values() == {}
