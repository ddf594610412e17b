"""CAGrad: near the mean gradient, the step that helps the worst task most (2110.14048).

    max over d of min_k g_k.d   with |d - g_0| <= c |g_0|,   g_0 = mean_k g_k
    d = g_0 + c |g_0| / |g_w| g_w,   w = argmin g_w.g_0 + c |g_0| |g_w|   over w_k >= 0, sum_k w_k = 1

c = 0 gives the mean; a large c approaches the direction of MGDA. The weights sum to 1 plus a part that grows with c.
The result is mean-type: a step is about K times shorter than with balance=fixed. If only k of K tasks have a gradient
in a step, their weights are k / K of those without the other tasks, because the mean is over all tasks.

If g_w is 0, several d are equally good for the worst task. The paper's formula then divides by 0, and torchjd takes no
step. Here d is the solution nearest to g_0. It is 0 only if g_0 is.

torchjd's CAGrad also treats |g_w| as 0 below 1e-4 of the longest gradient, and then takes no step. This happens in
every step if one loss is 10,000 times larger than another. The solution here does not depend on lengths. For a gain t
of the worst task, the nearest d to g_0 with g_k.d >= t is a least distance problem. Non-negative least squares solves
it exactly (Lawson and Hanson, Solving Least Squares Problems, chapter 23). The distance grows with t, and root finding
gives the t at which it is c |g_0|.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq, nnls
from torch import Tensor

from mmtrain.annotations import NonNegativeFloat
from mmtrain.balance.balance import TaskGradients
from mmtrain.balance.gradients import Gradients, GradientSource, unit_vectors, weigh
from mmtrain.balance.plain import BaseBalance

# A mean gradient below this fraction of the longest gradient counts as a rounding error.
SHARE = 1e-8
# A g_w below this fraction of its terms counts as 0: float32 gradients have a relative error of 1e-7.
RIDGE = 1e-6
# Tolerance for the gain of the worst task, in units where |g_0| and the shortest gradient are 1.
TOLERANCE = 1e-14


class CAGrad(BaseBalance):
    """Weights of the conflict-averse step.

    Args:
        gradients_of: "parameters" or "features": the gradients to compare.
        c: maximum distance from the mean gradient, as a multiple of its length.

    Raises:
        ValueError: if `c` is negative.
    """

    def __init__(self, *, gradients_of: GradientSource, c: NonNegativeFloat) -> None:
        super().__init__()
        if c < 0:
            raise ValueError(f"balance.c = {c}; set it to 0 or more")
        self._gradients = Gradients(of=gradients_of)
        self.c = c

    def weights(self, step: TaskGradients) -> Tensor:
        """Return weights (K,); a task without a gradient gets 1 / K."""
        gramian = self._gradients.gramian(step)
        return weigh(gramian, lambda g: len(g) * cagrad_weights(g, self.c), otherwise=1.0) / len(gramian)

    def values(self) -> dict[str, float]:
        """Return lengths and cosines of the gradients of the last step."""
        return self._gradients.seen


def cagrad_weights(gramian: Tensor, c: float) -> Tensor:
    """Return the weights of the conflict-averse step, (K,).

    Args:
        gramian: (K, K), with a positive diagonal.
        c: maximum distance from the mean gradient, as a multiple of its length.

    >>> cagrad_weights(torch.tensor([[1.0, 0.0], [0.0, 1e12]], dtype=torch.double), 0.5).round(decimals=6).tolist()
    [250000.5, 0.5]
    """
    norms, units = (part.numpy() for part in unit_vectors(gramian))
    even = np.full_like(norms, 1 / len(norms))
    mean = units @ (even * norms)
    length = np.linalg.norm(mean).item()
    if c == 0 or length <= SHARE * norms.max():
        return torch.from_numpy(even)
    # below, |g_0| and the shortest gradient are 1: d = g_0 + c e, and u_k.d >= t inverse_k for a gain of t
    inverse = norms.min() / norms
    cosines = units.T @ mean / length
    goal = np.append(np.zeros(len(units) + len(norms)), 1.0)

    ridged = np.vstack([units, RIDGE * np.eye(len(norms))])

    def nearest(gain: float) -> tuple[Any, float]:
        """Return v and r: ridged @ v / r is the shortest e for this gain; its squared length is 1 / r - 1."""
        least = (gain * inverse - cosines) / c  # lower bounds of u_k.e
        v, _ = nnls(np.vstack([ridged, least]), goal)
        return v, 1 - (least @ v).item()

    low = (cosines / inverse).min()  # the gain of g_0 itself, e = 0
    high = ((cosines + 1.01 * c) / inverse).min()  # above the gain of any e of length 1
    gain = brentq(lambda t: 0.5 - nearest(t)[1], low, high, xtol=TOLERANCE)
    v, _ = nearest(gain)
    v /= np.linalg.norm(ridged @ v)
    # if unit vectors cancel each other, keep only as many as give the same sum
    active = v > 0
    v[active], _ = nnls(units[:, active], units @ v)
    return torch.from_numpy(even + c * length * v / norms)
