"""Where a training loss jumps out of what it was just before."""

import numpy as np

WINDOW = 30  # logged values that say what is usual
DEVIATIONS = 8.0
LEAST = 0.1  # of the usual value; less is no spike, however steady the loss was


def spikes(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,), bool: above the median of the values before by eight deviations, and by a tenth.

    The deviation is 1.4826 times the median absolute one, which equals the standard deviation of normal noise and which
    a spike in the window hardly moves. What is not finite is no spike and says nothing of what is usual.

    >>> losses = np.array([1.0, 1.02] * 15 + [3.0, 1.01, 0.98])
    >>> spikes(losses).nonzero()[0].tolist()
    [30]
    """
    found = np.zeros(len(values), dtype=bool)
    if len(values) <= WINDOW:
        return found
    finite = np.where(np.isfinite(values), values, np.nan)
    before = np.lib.stride_tricks.sliding_window_view(finite[:-1], WINDOW)
    enough = np.isfinite(before).sum(axis=1) >= WINDOW // 2
    before = np.where(enough[:, None], before, 0.0)
    median = np.nanmedian(before, axis=1)
    deviation = 1.4826 * np.nanmedian(np.abs(before - median[:, None]), axis=1)
    limit = median + np.maximum(DEVIATIONS * deviation, LEAST * np.abs(median))
    now = finite[WINDOW:]
    found[WINDOW:] = enough & np.isfinite(now) & (np.where(np.isfinite(now), now, 0.0) > limit)
    return found
