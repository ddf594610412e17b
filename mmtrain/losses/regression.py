"""Regression losses: squared error, absolute error, and the Huber loss (10.1214/aoms/1177703732).

The loss of a row is the mean over its K numbers. A row counts once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_error(predictions: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over valid rows of their mean squared error, and the number of rows.

    Args:
        predictions: (B, K), floating point; float64 is kept, all other dtypes become float32.
        targets: (B, K); ignored in invalid rows.
        valid: (B,), bool.
    """
    return _of_rows(_errors(predictions, targets, valid).square(), valid)


def absolute_error(predictions: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Like `squared_error`, for the absolute error."""
    return _of_rows(_errors(predictions, targets, valid).abs(), valid)


def huber(predictions: Tensor, targets: Tensor, valid: Tensor, *, delta: float) -> tuple[Tensor, Tensor]:
    """Like `squared_error`, for e^2 / 2 up to an error of `delta`, and delta * (|e| - delta / 2) beyond it."""
    errors = _errors(predictions, targets, valid)
    return _of_rows(F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta), valid)


def _errors(predictions: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Return errors (B, K), zeros in invalid rows."""
    predictions = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    unread = ~valid.unsqueeze(1)
    return predictions.masked_fill(unread, 0.0) - targets.to(predictions.dtype).masked_fill(unread, 0.0)


def _of_rows(costs: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return costs.mean(dim=1).sum(), valid.sum()
