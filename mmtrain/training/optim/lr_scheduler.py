"""The scheduler of a run that may go on."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR


class Following(LambdaLR):
    """A schedule whose rates are those of the configuration, also of a run that goes on: it keeps its place alone.

    torch's own takes the rates back from the checkpoint, and with them a learning rate that was meant to be another.
    """

    def state_dict(self) -> dict[str, Any]:
        """The number of steps that were taken."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to that place; what checkpoints of other schedules have besides is passed over."""
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        rates = [rate * of(self.last_epoch) for rate, of in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, rate, base in zip(self.optimizer.param_groups, rates, self.base_lrs, strict=True):
            group["lr"], group["initial_lr"] = rate, base
        self._last_lr = rates
