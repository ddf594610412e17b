"""Learning-rate schedules: pure functions from the step to a factor of the learning rate."""

import math


def cosine(step: int, total_steps: int, *, warmup: float, final: float) -> float:
    """A straight rise, then half a cosine (1608.03983) down to `final`.

    Args:
        step: optimizer steps done.
        total_steps: of the whole run.
        warmup: share of the run that the rise takes.
        final: factor at the end.

    >>> [round(cosine(s, 10, warmup=0.2, final=0.0), 2) for s in (0, 1, 2, 6, 10)]
    [0.33, 0.67, 1.0, 0.5, 0.0]
    """
    rise = round(warmup * total_steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    done = min((step - rise) / max(total_steps - rise, 1), 1.0)
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2.0


def constant(step: int, total_steps: int, *, warmup: float) -> float:
    """A straight rise, then level. Arguments as in `cosine`."""
    rise = round(warmup * total_steps)
    return (step + 1) / (rise + 1) if step < rise else 1.0
