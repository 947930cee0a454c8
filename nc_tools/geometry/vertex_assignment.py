"""Which class takes which vertex of a frame."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Order = NDArray[np.int64]


def assign_by_means(frame: Tensor, means: Tensor) -> Tensor:
    """Give each class the vertex that its mean already points to, as far as all can have their way.

    The permutation p that maximizes sum_k cos(m_k - m, w_p(k)), m the mean of the means: the linear assignment problem.

    What this can change: the vertices of a simplex ETF are all equally far apart, so no assignment of them is better in
    itself; this one only shortens the way that the features of *this* backbone have to go, whatever its start makes of
    the classes. Before a projection that is not trained yet, even that means little.

    Args:
        frame: Class vectors (K, D').
        means: Class means (K, D') in the space of the frame: of ``head.embed(features)``.

    Returns:
        (K,), int64: class k is to take row p(k) of ``frame``, as ``head.assign`` wants it.

    Raises:
        ValueError: If the shapes differ or a mean is not finite.

    Example:
        >>> frame = torch.eye(3)
        >>> assign_by_means(frame, frame[[2, 0, 1]] + 0.1).tolist()
        [2, 0, 1]
    """
    from scipy.optimize import linear_sum_assignment

    if means.shape != frame.shape:
        raise ValueError(f"means must have the frame's shape {tuple(frame.shape)}, got {tuple(means.shape)}")
    _check_finite("means", means)
    centered = means.detach().to("cpu", torch.float64)
    centered = centered - centered.mean(0)
    # A class whose mean is the overall mean points nowhere, and takes what is left.
    norms = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    cosines = centered / norms.clamp_min(torch.finfo(torch.float64).tiny) @ frame.detach().to(centered).T
    return torch.from_numpy(linear_sum_assignment(cosines.numpy(), maximize=True)[1])


def assign_by_similarity(frame: Tensor, similarity: Tensor) -> Tensor:
    """Give similar classes near vertices: the permutation p that raises sum_ij s_ij w_p(i) . w_p(j).

    For frames whose vertices are not all equally far apart: orthoplex, cube, spherical codes, random rows. This is the
    quadratic assignment problem, which nobody solves exactly at such sizes. Here the relaxation of Vogelstein et al.
    (2015, "Fast approximate quadratic programming for graph matching") gives a start, and pairs of classes are
    exchanged, the best pair first, until no exchange gains: a local optimum, never worse than the order given. To put
    similar classes *far* apart, hand in ``-similarity``.

    Args:
        frame: Class vectors (K, D').
        similarity: (K, K), higher is more alike, such as a confusion matrix or cosines of class means; made symmetric
            here, its diagonal ignored.

    Returns:
        (K,), int64: class k is to take row p(k) of ``frame``, as ``head.assign`` wants it.

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
        raise ValueError(f"similarity must be ({classes}, {classes}), one row a class, got {tuple(similarity.shape)}")
    _check_finite("similarity", similarity)
    rows = frame.detach().to("cpu", torch.float64)
    near = (rows @ rows.T).numpy()
    if np.ptp(near[~np.eye(classes, dtype=bool)]) < 1e-4:
        raise ValueError(
            "all vertices of this frame are equally far apart, so that similarity cannot choose among them: "
            "use assign_by_means, or another geometry"
        )
    alike = similarity.detach().to("cpu", torch.float64).numpy()
    alike = (alike + alike.T) / 2
    np.fill_diagonal(alike, 0.0)
    np.fill_diagonal(near, 0.0)
    starts = (np.arange(classes), _relaxed(alike, near))
    found = max((_exchange(alike, near, start) for start in starts), key=lambda p: _agreement(alike, near, p))
    return torch.from_numpy(found)


def _agreement(alike: Matrix, near: Matrix, order: Order) -> float:
    """Return sum_ij s_ij g_p(i)p(j)."""
    return float((alike * near[np.ix_(order, order)]).sum())


def _relaxed(alike: Matrix, near: Matrix) -> Order:
    """Follow the relaxation over doubly stochastic matrices, from its center, to a permutation."""
    from scipy.optimize import quadratic_assignment

    # A generator of its own, though nothing is drawn: SciPy warns of whoever has seeded NumPy's global one.
    rng = np.random.default_rng(0)
    found = quadratic_assignment(alike, near, method="faq", options={"maximize": True, "rng": rng})
    return np.asarray(found.col_ind, dtype=np.int64)


def _exchange(alike: Matrix, near: Matrix, start: Order) -> Order:
    """Exchange the two classes that gain most, again and again, until none does."""
    order = start.copy()
    placed = near[np.ix_(order, order)]
    cross = alike @ placed
    while True:
        own = cross.diagonal()
        gain = cross + cross.T - own - own[:, None] + 2 * alike * placed
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[i, j] <= 1e-9 * (1 + np.abs(own).max()):
            return order
        order[[i, j]] = order[[j, i]]
        # Two rows and two columns of the matrix are exchanged; so are two columns of the product, but for the new rows.
        before = placed[[i, j]]
        placed[[i, j]] = placed[[j, i]]
        placed[:, [i, j]] = placed[:, [j, i]]
        before[:, [i, j]] = before[:, [j, i]]
        cross[:, [i, j]] = cross[:, [j, i]]
        cross += alike[:, [i, j]] @ (placed[[i, j]] - before)


def _check_finite(name: str, given: Tensor) -> None:
    if not bool(torch.isfinite(given).all()):
        raise ValueError(
            f"{name} must be finite, but hold NaN or inf: a class without samples needs a value of its own"
        )
