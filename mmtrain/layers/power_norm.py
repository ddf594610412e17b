"""Signed square root, then l2 norm, as after the product of bilinear pooling (1606.01847; 1708.01471, sec. 3).

The gradient of sign(x) sqrt|x| is infinite at 0. x / sqrt(|x| + EPS) replaces it here: an exact zero stays zero, and
the gradient is at most 1 / sqrt(EPS). A value of 0.001 changes by 0.05 %. A vector of zeros is not divided by its norm,
so its gradient has the same bound.
"""

import torch
from torch import Tensor

EPS = 1e-6


def power_norm(x: Tensor) -> Tensor:
    """Map (..., D) to (..., D) with an l2 norm of 1 over the last dimension; a vector of zeros is unchanged."""
    rooted = x * (x.abs() + EPS).rsqrt()
    norm = torch.linalg.vector_norm(rooted, dim=-1, keepdim=True)
    return rooted / norm.masked_fill(norm == 0, 1.0)
