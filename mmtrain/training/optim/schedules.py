"""Learning-rate schedules: functions that map a step to a factor, and the scheduler that applies them."""

import math
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from mmtrain.annotations import Fraction


def cosine(step: int, total_steps: int, *, warmup_ratio: Fraction, min_lr_ratio: Fraction) -> float:
    """Linear warmup, then half a cosine (1608.03983) to `min_lr_ratio`.

    Args:
        step: number of optimizer steps so far.
        total_steps: number of steps of the complete run.
        warmup_ratio: fraction of the run for the warmup.
        min_lr_ratio: factor at the end.

    >>> [round(cosine(s, 10, warmup_ratio=0.2, min_lr_ratio=0.0), 2) for s in (0, 1, 2, 6, 10)]
    [0.33, 0.67, 1.0, 0.5, 0.0]
    """
    rise = round(warmup_ratio * total_steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    done = min((step - rise) / max(total_steps - rise, 1), 1.0)
    return min_lr_ratio + (1.0 - min_lr_ratio) * (1.0 + math.cos(math.pi * done)) / 2.0


def constant(step: int, total_steps: int, *, warmup_ratio: Fraction) -> float:
    """Linear warmup, then constant. Arguments as in `cosine`."""
    rise = round(warmup_ratio * total_steps)
    return (step + 1) / (rise + 1) if step < rise else 1.0


class ResumableLambdaLR(LambdaLR):
    """A scheduler that always uses the rates of the configuration, also in a resumed run: its state is only the step.

    Torch's scheduler restores the rates from the checkpoint, so a new learning rate would have no effect.
    """

    def state_dict(self) -> dict[str, Any]:
        """The number of steps."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the step. Other states of other schedulers are ignored."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        rates = [rate * of(self.last_epoch) for rate, of in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, rate, base in zip(self.optimizer.param_groups, rates, self.base_lrs, strict=True):
            group["lr"], group["initial_lr"] = rate, base
        self._last_lr = rates
