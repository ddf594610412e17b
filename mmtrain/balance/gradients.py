"""Helpers of the gradient-based methods: the Gramian of a step, quantities to log, and which tasks take part.

A method sees only tasks that have a gradient in this step. A task has none if no row of the step has its target. Its
zero gradient is not a conflict, but MGDA and CAGrad would then take no step at all.

The gradients of one step can differ in length by many orders of magnitude, and a solver with an absolute tolerance
treats short ones as zero. So the methods separate lengths from directions: `unit_vectors` returns directions of length
1.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmtrain.balance.balance import TaskGradients

GradientSource = Literal["parameters", "features"]
CHOICES: tuple[GradientSource, ...] = get_args(GradientSource)
# Eigenvalues of a cosine matrix below this are rounding errors: float32 gradients have a relative error of 1e-7.
ROUNDING = 1e-14


class Gradients:
    """Computes the Gramian of a step, and keeps lengths and cosines for logging.

    Args:
        of: "parameters" of encoders and fusion, or "features", the outputs of the encoders, which is cheaper.

    Raises:
        ValueError: for any other `of`.
    """

    def __init__(self, *, of: GradientSource) -> None:
        if of not in CHOICES:
            raise ValueError(f"balance.gradients_of = {of}; set it to {' or '.join(CHOICES)}")
        self.of = of
        self.seen: dict[str, float] = {}

    def gramian(self, step: TaskGradients) -> Tensor:
        """Return (K, K), float64, on the CPU, because K is small and the solvers run there."""
        gramian = step.gramian(self.of).cpu()
        self.seen = lengths(gramian, step.names) | cosines(gramian, step.names)
        return gramian


def lengths(gramian: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return the length of each gradient, by log name.

    >>> lengths(torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), ["a", "b"])
    {'gradient_norm/a': 2.0, 'gradient_norm/b': 3.0}
    """
    return {
        f"gradient_norm/{n}": s for n, s in zip(names, gramian.diagonal().clamp(min=0.0).sqrt().tolist(), strict=True)
    }


def cosines(gramian: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return the cosine of each pair of gradients, by log name; 0 if one gradient is zero.

    Args:
        gramian: (K, K).
        names: names of the K tasks.

    >>> cosines(torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), ["a", "b"])
    {'cosine/a-b': -0.5}
    """
    norms = gramian.diagonal().clamp(min=0.0).sqrt()
    products = torch.outer(norms, norms)
    table = torch.where(products > 0, gramian / products, 0.0).tolist()
    return {
        f"cosine/{first}-{second}": table[i][j]
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i < j
    }


def with_gradient(gramian: Tensor) -> Tensor:
    """Return (K,), bool: which tasks have a gradient. If one gradient is not finite, the result is all False.

    The relative length of a gradient does not matter: only an exact zero is excluded.
    """
    squares = gramian.diagonal()
    return (squares > 0) & squares.isfinite().all()


def unit_vectors(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """Split gradients into lengths and directions, in as few dimensions as possible.

    Args:
        gramian: (K, K), with a positive diagonal.

    Returns:
        Lengths (K,), and a matrix (rank, K) whose columns have length 1 and the cosines of the gradients.

    >>> norms, units = unit_vectors(torch.tensor([[4.0, -6.0], [-6.0, 9.0]], dtype=torch.double))
    >>> norms.tolist(), units.shape, (units.T @ units).round(decimals=6).tolist()
    ([2.0, 3.0], torch.Size([1, 2]), [[1.0, -1.0], [-1.0, 1.0]])
    """
    norms = gramian.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(gramian / torch.outer(norms, norms))
    kept = values > ROUNDING
    return norms, values[kept].sqrt().unsqueeze(1) * vectors[:, kept].T


def weigh(gramian: Tensor, rule: Callable[[Tensor], Tensor], *, otherwise: float) -> Tensor:
    """Apply a method to the tasks that have a gradient.

    Args:
        gramian: (K, K).
        rule: (k, k) -> (k,), for any k from 1 to K; its result must not depend on the scale of the Gramian.
        otherwise: weight of a task without a gradient here; its head may still have one.

    Returns:
        (K,).
    """
    present = with_gradient(gramian)
    weights = torch.full_like(gramian.diagonal(), otherwise)
    if present.any():
        part = gramian[present][:, present]
        weights[present] = rule(part / part.diagonal().mean())
    return weights
