"""Losses of numbers: squared, absolute, and Huber's (10.1214/aoms/1177703732), which is squared near and absolute far.

A row costs the mean over its K numbers and counts once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_error(predictions: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the valid rows of the mean squared error of their numbers, and their count.

    Args:
        predictions: (B, K), floating point; float64 stays, all else becomes float32.
        targets: (B, K); anything in a row that is not valid.
        valid: (B,), bool.
    """
    return _of_rows(_errors(predictions, targets, valid).square(), valid)


def absolute_error(predictions: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """As `squared_error`, of the distance."""
    return _of_rows(_errors(predictions, targets, valid).abs(), valid)


def huber(predictions: Tensor, targets: Tensor, valid: Tensor, *, delta: float) -> tuple[Tensor, Tensor]:
    """As `squared_error`, of e^2 / 2 for an error e up to `delta` and delta * (|e| - delta / 2) beyond."""
    errors = _errors(predictions, targets, valid)
    return _of_rows(F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta), valid)


def _errors(predictions: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """(B, K), zeros in rows that are not valid."""
    predictions = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    unread = ~valid.unsqueeze(1)
    return predictions.masked_fill(unread, 0.0) - targets.to(predictions.dtype).masked_fill(unread, 0.0)


def _of_rows(costs: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return costs.mean(dim=1).sum(), valid.sum()
