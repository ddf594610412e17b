"""Steps of balances from their papers' definitions, on gradients and by trying every set of tasks: slow and exact."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from torch import Tensor

# What rounding may do to a share that is 0, where lengths differ by 1e6.
CLOSE = 1e-9


def sets_of(count: int) -> Iterator[list[int]]:
    for size in range(1, count + 1):
        yield from map(list, combinations(range(count), size))


def corner_and_edges(gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One of the gradients, and the others as seen from it: together a plane through all of them."""
    return gradients[0], gradients[1:] - gradients[0]


def in_span(gradients: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis of what the gradients span, and the step in it."""
    basis, _ = np.linalg.qr(gradients.T)
    return basis, basis.T @ step


def mgda(jacobian: Tensor) -> np.ndarray:
    """The shortest vector of the convex hull: of the faces of the hull, the nearest to 0."""
    gradients = jacobian.numpy()
    results = []
    for chosen in sets_of(len(gradients)):
        corner, edges = corner_and_edges(gradients[chosen])
        shares = np.linalg.lstsq(edges.T, -corner, rcond=None)[0]
        if min([1 - shares.sum(), *shares]) >= -CLOSE:
            results.append(corner + shares @ edges)
    return min(results, key=np.linalg.norm)


def upgrad(jacobian: Tensor) -> np.ndarray:
    """The mean of projections to where no gradient is hurt: of the faces of that cone, the nearest that lies in it."""
    gradients = jacobian.numpy()
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    projections = []
    for gradient in gradients:
        results = [gradient] if (units @ gradient).min() >= 0 else []
        for chosen in sets_of(len(units)):
            basis, along = in_span(units[chosen], gradient)
            step = gradient - basis @ along
            if (units @ step).min() >= -1e-12 * np.linalg.norm(gradient):
                results.append(step)
        projections.append(min(results, key=lambda step, to=gradient: np.linalg.norm(step - to)))
    return np.mean(projections, axis=0)


def cagrad(jacobian: Tensor, c: float) -> np.ndarray:
    """The paper's dual, the least g_w.g_0 + c |g_0| |g_w|: of the faces of the simplex, the best."""
    gradients = jacobian.numpy()
    mean = gradients.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    best, of_best = np.inf, mean
    for chosen in sets_of(len(gradients)):
        corner, edges = corner_and_edges(gradients[chosen])
        basis, along = in_span(edges, mean)
        if np.linalg.norm(along) >= radius:
            continue  # it falls without end on this plane: the best is on its rim
        foot = corner - basis @ (basis.T @ corner)
        mixed = foot - basis @ along * np.linalg.norm(foot) / np.sqrt(radius**2 - along @ along)
        shares = np.linalg.lstsq(edges.T, mixed - corner, rcond=None)[0]
        value = mixed @ mean + radius * np.linalg.norm(mixed)
        if min([1 - shares.sum(), *shares]) >= -CLOSE and value < best:
            best, of_best = value, mixed
    return mean + radius * of_best / np.linalg.norm(of_best)
