"""Gradients of the losses of single tasks, and their inner products."""

from collections.abc import Sequence

import torch
from torch import Tensor

WHERE = ("parameters", "features")  # what a Gramian can be of; see `mmtrain.training.step.TrainingStep.gramian`
COLUMNS = 2**20  # that are converted to float64 at a time


def jacobian(losses: Sequence[Tensor], inputs: Sequence[Tensor], *, loss_scale: float) -> Tensor:
    """Return the gradient of each loss by all inputs: (K, P), zeros where a loss does not depend on an input.

    The graph stays in memory.

    Args:
        losses: K scalars.
        inputs: that are differentiated by, P numbers in all; if there are none, P is 1.
        loss_scale: losses are multiplied by it before the backward pass, and gradients divided by it after.
    """
    rows = []
    for loss in losses:
        row = [torch.zeros_like(t) for t in inputs]
        if loss.requires_grad and inputs:
            gradients = torch.autograd.grad(loss * loss_scale, inputs, retain_graph=True, allow_unused=True)
            row = [zeros if g is None else g for zeros, g in zip(row, gradients, strict=True)]
        rows.append(torch.cat([g.flatten() / loss_scale for g in row] or [loss.new_zeros(1)]))
    return torch.stack(rows)


def inner_products(rows: Tensor) -> Tensor:
    """Return the inner products of rows, (K, P) -> (K, K), in float64, computed over some of the columns at a time.

    In float32 the cosines of nearly parallel gradients would be rounding errors, and squares of short gradients 0.
    """
    return torch.stack([part @ part.T for part in map(Tensor.double, rows.split(COLUMNS, dim=1))]).sum(dim=0)
