"""Signed square root, then l2 norm: what bilinear pooling puts behind a product (1606.01847; 1708.01471, sec. 3).

The gradient of sign(x) sqrt|x| is infinite at 0. Here x / sqrt(|x| + EPS) stands for it: an exact zero stays one, the
gradient is nowhere above 1 / sqrt(EPS), and a value of 0.001 changes by half a thousandth of itself. A vector of zeros
is not divided by its norm, so that its gradient has that bound too.
"""

import torch
from torch import Tensor

EPS = 1e-6


def power_norm(x: Tensor) -> Tensor:
    """Map (..., D) to (..., D) with an l2 norm of 1 over the last dimension; a vector of zeros stays as it is."""
    rooted = x * (x.abs() + EPS).rsqrt()
    norm = torch.linalg.vector_norm(rooted, dim=-1, keepdim=True)
    return rooted / norm.masked_fill(norm == 0, 1.0)
