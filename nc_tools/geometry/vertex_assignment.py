"""Choosing which class gets which vertex of a frame."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Order = NDArray[np.int64]


def assign_by_means(frame: Tensor, means: Tensor) -> Tensor:
    """Match classes to vertices by linear assignment, so that class means point to their vertices.

    The result is the permutation p that maximizes sum_k cos(m_k - m, w_p(k)), with m the mean of the means.

    All vertices of a simplex ETF are equally far apart, so no assignment of them is better in itself. This one only
    makes the distance from the current features of the backbone to the vertices small. It has little effect if an
    untrained projection comes before the frame.

    Args:
        frame: Class vectors (K, D').
        means: Class means (K, D') in the space of the frame: of ``head.embed(features)``.

    Returns:
        (K,), int64: class k takes row p(k) of ``frame``. Pass it to ``head.assign``.

    Raises:
        ValueError: If the shapes differ or a mean is not finite.

    Example:
        >>> frame = torch.eye(3)
        >>> assign_by_means(frame, frame[[2, 0, 1]] + 0.1).tolist()
        [2, 0, 1]
    """
    from scipy.optimize import linear_sum_assignment

    if means.shape != frame.shape:
        raise ValueError(f"means must have the shape of the frame, {tuple(frame.shape)}, got {tuple(means.shape)}")
    _check_finite("means", means)
    centered = means.detach().to("cpu", torch.float64)
    centered = centered - centered.mean(0)
    # A class whose mean is the overall mean has no direction: all its cosines are zero.
    norms = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    cosines = centered / norms.clamp_min(torch.finfo(torch.float64).tiny) @ frame.detach().to(centered).T
    return torch.from_numpy(linear_sum_assignment(cosines.numpy(), maximize=True)[1])


def assign_by_similarity(frame: Tensor, similarity: Tensor) -> Tensor:
    """Match similar classes to near vertices, by a local search.

    The search looks for a permutation p with a large sum_ij s_ij w_p(i) . w_p(j), the similarity of two classes times
    the inner product of their vectors.

    Use it for frames whose vertices are not all equally far apart: orthoplex, cube, spherical codes, random rows. This
    is the quadratic assignment problem, which cannot be solved exactly for more than a few classes. The relaxation of
    Vogelstein et al. (2015, "Fast approximate quadratic programming for graph matching") gives a start. Then pairs of
    classes are exchanged, the best pair first, until no exchange improves the sum. The result is a local optimum, never
    worse than the identity. To put similar classes *far* apart, pass ``-similarity``.

    Args:
        frame: Class vectors (K, D').
        similarity: (K, K), higher is more similar, such as a confusion matrix or cosines of class means. It is made
            symmetric, and its diagonal is ignored.

    Returns:
        (K,), int64: class k takes row p(k) of ``frame``. Pass it to ``head.assign``.

    Raises:
        ValueError: If the similarity is not (K, K) and finite, or if all vertices are equally far apart.

    Example:
        >>> frame = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
        >>> similarity = torch.tensor([[0.0, 0.9, 0.1], [0.9, 0.0, 0.1], [0.1, 0.1, 0.0]])
        >>> order = assign_by_similarity(frame, similarity)
        >>> float(frame[order[0]] @ frame[order[1]])
        0.0
    """
    classes = len(frame)
    if similarity.shape != (classes, classes):
        raise ValueError(f"similarity must have the shape ({classes}, {classes}), got {tuple(similarity.shape)}")
    _check_finite("similarity", similarity)
    rows = frame.detach().to("cpu", torch.float64)
    near = (rows @ rows.T).numpy()
    if np.ptp(near[~np.eye(classes, dtype=bool)]) < 1e-4:
        raise ValueError(
            "all vertices of this frame are equally far apart, so no assignment is better than another: use "
            "assign_by_means, or a frame of another geometry"
        )
    similar = similarity.detach().to("cpu", torch.float64).numpy()
    similar = (similar + similar.T) / 2
    np.fill_diagonal(similar, 0.0)
    np.fill_diagonal(near, 0.0)
    starts = (np.arange(classes), _relaxed(similar, near))
    best = max((_exchange(similar, near, start) for start in starts), key=lambda p: _agreement(similar, near, p))
    return torch.from_numpy(best)


def _agreement(similar: Matrix, near: Matrix, order: Order) -> float:
    """Return sum_ij s_ij g_p(i)p(j), with g the inner products of the vertices and p the order."""
    return float((similar * near[np.ix_(order, order)]).sum())


def _relaxed(similar: Matrix, near: Matrix) -> Order:
    """Return the permutation that the relaxation over doubly stochastic matrices gives."""
    from scipy.optimize import quadratic_assignment

    # Nothing is drawn, but without a generator SciPy warns if NumPy's global one was seeded.
    rng = np.random.default_rng(0)
    result = quadratic_assignment(similar, near, method="faq", options={"maximize": True, "rng": rng})
    return np.asarray(result.col_ind, dtype=np.int64)


def _exchange(similar: Matrix, near: Matrix, start: Order) -> Order:
    """Return the order after exchanging the pair of classes with the largest gain until no exchange gains."""
    order = start.copy()
    placed = near[np.ix_(order, order)]
    cross = similar @ placed
    while True:
        own = cross.diagonal()
        gain = cross + cross.T - own - own[:, None] + 2 * similar * placed
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[i, j] <= 1e-9 * (1 + np.abs(own).max()):
            return order
        order[[i, j]] = order[[j, i]]
        # Update the product for two exchanged rows and columns, without computing it anew.
        old_rows = placed[[i, j]]
        placed[[i, j]] = placed[[j, i]]
        placed[:, [i, j]] = placed[:, [j, i]]
        old_rows[:, [i, j]] = old_rows[:, [j, i]]
        cross[:, [i, j]] = cross[:, [j, i]]
        cross += similar[:, [i, j]] @ (placed[[i, j]] - old_rows)


def _check_finite(name: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} must be finite, got NaN or inf: give classes without samples a finite value")
