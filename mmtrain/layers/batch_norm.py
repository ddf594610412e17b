"""Batch norms that receive a single value per channel in training, such as a 1x1 feature map with a batch of one image.

A single value has no variance, so PyTorch raises `ValueError: Expected more than 1 value per channel when training`.
Such a call uses the running statistics, as in evaluation, and does not update them. All other calls are unchanged.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def use_running_stats_for_single_values(model: nn.Module) -> None:
    """Make every batch norm in `model` accept a single value per channel in training.

    This includes subclasses with their own forward. A norm without running statistics returns its bias, which is the
    result of normalizing one value by its own mean. Names in the state dict do not change.

    Args:
        model: each of its batch norms gets two hooks; a copy of the model gets separate hooks.
    """
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            single = _SingleValue()
            norm.register_forward_pre_hook(single.before)
            norm.register_forward_hook(single.after, always_call=True)


class _SingleValue:
    """The two hooks of one batch norm."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor | None, Tensor | None] | None = None  # the statistics, while copies replace them
        self._is_doubled = False

    def before(self, norm: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        """Switch to evaluation mode for a single value per channel."""
        assert isinstance(norm, _BatchNorm)
        x = args[0]
        if not norm.training or x.numel() != x.shape[1]:
            return None
        if norm.running_mean is None or norm.running_var is None:
            self._is_doubled = True
            return (x.repeat(2, *[1] * (x.ndim - 1)),)
        # Use copies: the backward pass reads them, and a later call in this step may update the originals.
        self._kept = norm.running_mean, norm.running_var
        norm.running_mean, norm.running_var = norm.running_mean.clone(), norm.running_var.clone()
        norm.training = False
        return None

    def after(self, norm: nn.Module, args: tuple[Any, ...], output: Tensor | None) -> Tensor | None:
        """Switch back. `output` is None after an error in the norm."""
        assert isinstance(norm, _BatchNorm)
        if self._kept is not None:
            norm.running_mean, norm.running_var = self._kept
            norm.training, self._kept = True, None
        was_doubled, self._is_doubled = self._is_doubled, False
        return output[:1] if was_doubled and output is not None else None
