"""What rules share that judge tasks by their gradients: the Gramian of a step, what it says, and who takes part.

A rule sees only the tasks that have a gradient in this step. A task has none when no row of the step has its target,
and its zero is no conflict: MGDA and CAGrad would answer with no step at all.

Gradients of one step can differ in length by many orders of magnitude. A solver with an absolute tolerance takes the
short ones for zero. Rules therefore separate lengths from directions: `unit_vectors` gives directions, all of length 1.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmtrain.balance.balance import Look

CHOICES = ("parameters", "features")
# Eigenvalues of a matrix of cosines below this are rounding: float32 gradients are known to 1e-7 of their length.
ROUNDING = 1e-14


class Gradients:
    """Looks at the gradients of a step, and keeps their lengths and cosines to log.

    Args:
        of: parameters: of encoders and fusion; features: what the encoders give, which is cheaper.

    Raises:
        ValueError: when `of` is neither.
    """

    def __init__(self, *, of: str) -> None:
        if of not in CHOICES:
            raise ValueError(f"balance.gradients_of = {of}; set it to {' or '.join(CHOICES)}")
        self.of = of
        self.seen: dict[str, float] = {}

    def gramian(self, look: Look) -> Tensor:
        """(K, K), float64, on the CPU: K is small, and solvers work there."""
        gramian = look.gramian(self.of).cpu()
        self.seen = lengths(gramian, look.names) | cosines(gramian, look.names)
        return gramian


def lengths(gramian: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The length of each gradient.

    >>> lengths(torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), ["a", "b"])
    {'gradient_norm/a': 2.0, 'gradient_norm/b': 3.0}
    """
    return {
        f"gradient_norm/{n}": s for n, s in zip(names, gramian.diagonal().clamp(min=0.0).sqrt().tolist(), strict=True)
    }


def cosines(gramian: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The cosine of each pair of gradients; 0 where one has none.

    Args:
        gramian: (K, K).
        names: K.

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
    """(K,), bool: which tasks have a gradient; none where one is not finite, as then there is nothing to compare.

    How short a gradient is beside another does not matter: only an exact zero is none.
    """
    squares = gramian.diagonal()
    return (squares > 0) & squares.isfinite().all()


def unit_vectors(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and directions of gradients, in as few dimensions as hold them.

    Args:
        gramian: (K, K), with a positive diagonal.

    Returns:
        Lengths (K,), and a matrix (rank, K). Its columns have length 1 and the cosines of the gradients.

    >>> norms, units = unit_vectors(torch.tensor([[4.0, -6.0], [-6.0, 9.0]], dtype=torch.double))
    >>> norms.tolist(), units.shape, (units.T @ units).round(decimals=6).tolist()
    ([2.0, 3.0], torch.Size([1, 2]), [[1.0, -1.0], [-1.0, 1.0]])
    """
    norms = gramian.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(gramian / torch.outer(norms, norms))
    kept = values > ROUNDING
    return norms, values[kept].sqrt().unsqueeze(1) * vectors[:, kept].T


def weigh(gramian: Tensor, rule: Callable[[Tensor], Tensor], *, otherwise: float) -> Tensor:
    """The weights of a rule over the tasks that have a gradient.

    Args:
        gramian: (K, K).
        rule: (k, k) -> (k,), for any k of 1 to K; scaling its Gramian must change nothing.
        otherwise: the weight of a task without a gradient here, which may have one in its head.

    Returns:
        (K,).
    """
    there = with_gradient(gramian)
    weights = torch.full_like(gramian.diagonal(), otherwise)
    if there.any():
        part = gramian[there][:, there]
        weights[there] = rule(part / part.diagonal().mean())
    return weights
