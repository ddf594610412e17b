"""Fixed weights are ones, without parameters or state."""

import torch

from mmtrain.balance.fixed import Fixed
from mmtrain.training.task_gradients import StepLook


def test_every_task_counts_with_its_own_weight_alone() -> None:
    look = StepLook(
        names=["a", "b"], scales=[1.0, 3.0], seed=0, number=1, run=None, model=None, loss_scale=1.0, keeps=True
    )
    balance = Fixed()
    assert balance.weights(look).tolist() == [1.0, 1.0]  # does not use the look
    assert balance.own_loss(torch.ones(2)) is None
    assert not list(balance.parameters()) and balance.state() == {} and balance.values() == {}
