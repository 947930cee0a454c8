"""Spherical codes: any number of class vectors in any number of dimensions, as far apart as possible."""

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from nc_tools.geometry.code_bounds import check_sizes, closed_form_angle
from nc_tools.geometry.quadratic_code import quadratic_bound, quadratic_code
from nc_tools.geometry.rotation import haar_frame
from nc_tools.geometry.simplex import simplex_etf
from nc_tools.geometry.tammes import solve_tammes
from nc_tools.seeds import stream

SOLVER_LIMIT = 2000  # largest K for the solver; above it one step takes seconds


def spherical_code(num_classes: int, feature_dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return K unit vectors in D dimensions, spread so that the largest inner product of two is small.

    Use it when there are more classes than dimensions: a simplex ETF exists only for K <= D + 1. The inner product is
    signed, so opposite vectors are good (the Tammes problem, not that of line packings).

    - K <= D + 1: the simplex ETF, optimal.
    - D + 2 <= K <= 2 D: K - D simplices in orthogonal subspaces, optimal with w_i . w_j <= 0 (Rankin 1955); at K = 2 D
      the orthoplex. Unlike the first K vertices of an orthoplex, these rows sum to zero, and all classes are
      equivalent if K - D divides D.
    - D = 2: the regular polygon, optimal.
    - K <= 2,000: the better of :func:`~nc_tools.geometry.tammes.solve_tammes` and, if there is one, a
      :func:`~nc_tools.geometry.quadratic_code`. Solved once per (K, D) and process: 1 to 3 s up to K = 60, 10 to 30 s
      at K = 100 to 300, 50 s at K = 2,000 (one core). Compared with the best known codes (``known_codes``), the
      minimal angle is at most .03 % smaller for D = 3 and K = 7 to 40, and otherwise at most 4 % smaller, except for
      two very symmetric codes that a search does not reach: (275, 22) by 5.4 % and (552, 23) by 7.4 %.
    - K > 2,000: a :func:`~nc_tools.geometry.quadratic_code` if one exists (for D >= 32 up to K = 65,600, for D >= 64
      up to half a million), in seconds. Otherwise random rows, which are a poor code: check :func:`minimal_angle`.

    Args:
        num_classes: K, at least 2.
        feature_dim: D; at least 2, or 1 for two classes.
        generator: CPU generator that draws a Haar rotation; if None, the code is always the same.

    Returns:
        (K, D), float64, on the CPU. Apart from the rotation it is the same at each call and for any number of threads.

    Raises:
        ValueError: If K < 2, or if D is too small: D < 1, or D < 2 for K > 2.

    Example:
        >>> w = spherical_code(12, 3, generator=torch.Generator().manual_seed(0))
        >>> round(minimal_angle(w), 2)  # the icosahedron
        63.43
    """
    check_sizes(num_classes, feature_dim)
    if num_classes <= feature_dim + 1:
        return simplex_etf(num_classes, feature_dim, generator=generator)
    code = _code(num_classes, feature_dim)
    width = code.shape[1]
    if generator is None:
        return torch.nn.functional.pad(code, (0, feature_dim - width))
    return code @ haar_frame(feature_dim, width, generator=generator).T


@cache
def code_angle(num_classes: int, feature_dim: int) -> float:
    """Return the minimal angle of :func:`spherical_code` for these sizes, in degrees.

    For quadratic codes of more than 2,000 vectors it is a lower bound that follows from the construction; the measured
    angle can be larger. For all other codes it is exact.

    Args:
        num_classes: K, at least 2.
        feature_dim: D; at least 2, or 1 for two classes.

    Raises:
        ValueError: If K < 2, or if D is too small: D < 1, or D < 2 for K > 2.

    Example:
        >>> round(code_angle(50_000, 768), 2)
        86.42
    """
    check_sizes(num_classes, feature_dim)
    exact = closed_form_angle(num_classes, feature_dim)
    if exact is not None:
        return exact
    bound = quadratic_bound(num_classes, feature_dim)
    if num_classes > SOLVER_LIMIT and bound is not None:
        return math.degrees(math.acos(bound))
    return minimal_angle(_code(num_classes, feature_dim))


def minimal_angle(weight: Tensor, *, rows: Tensor | None = None) -> float:
    """Return the smallest angle between two rows of a matrix, in degrees.

    min_{i != j} arccos(w_i . w_j / (||w_i|| ||w_j||)). For the nearest pair it is computed from the sum and the
    difference of the unit vectors, so small angles are accurate. Works in blocks: no K x K matrix is stored.

    Args:
        weight: (K, D), no row zero.
        rows: Indices of rows. Only their angles to all other rows are compared: faster, but the smallest angle can be
            missed.

    Raises:
        ValueError: If there are fewer than two rows.

    Example:
        >>> round(minimal_angle(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])), 6)
        90.0
    """
    if weight.ndim != 2 or len(weight) < 2:
        raise ValueError(f"weight must be a matrix of at least 2 rows, got shape {tuple(weight.shape)}")
    w = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    w = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)
    indices = torch.arange(len(w), device=w.device) if rows is None else rows.to(w.device)
    closest, pair = -math.inf, (0, 1)
    for block in torch.split(indices, max(1, 2**23 // len(w))):
        cosine = w[block] @ w.T
        cosine.scatter_(1, block[:, None], -torch.inf)
        value, index = cosine.flatten().max(dim=0)
        if float(value) > closest:
            closest, pair = float(value), (int(block[int(index) // len(w)]), int(index) % len(w))
    u, v = w[pair[0]].double(), w[pair[1]].double()
    half = math.atan2(float(torch.linalg.vector_norm(u - v)), float(torch.linalg.vector_norm(u + v)))
    return math.degrees(2 * half)


def _code(num_classes: int, feature_dim: int) -> Tensor:
    """Return the code for K > D + 1, without dimensions that it does not use."""
    if feature_dim == 2:
        turn = 2 * math.pi / num_classes * torch.arange(num_classes, dtype=torch.float64, device="cpu")
        return torch.stack([turn.cos(), turn.sin()], dim=1)
    if num_classes <= 2 * feature_dim:
        return _orthogonal_simplices(num_classes, feature_dim)
    if num_classes <= SOLVER_LIMIT:
        return _solved(num_classes, feature_dim)
    if quadratic_bound(num_classes, feature_dim) is not None:
        return _quadratic(num_classes, feature_dim)
    rows = torch.randn(
        num_classes, feature_dim, dtype=torch.float64, generator=stream(0, "frame", num_classes), device="cpu"
    )
    return torch.nn.functional.normalize(rows, dim=1)


def _orthogonal_simplices(num_classes: int, feature_dim: int) -> Tensor:
    """Return K - D simplices in orthogonal subspaces; their dimensions add up to D and differ by at most one."""
    parts = num_classes - feature_dim
    small, larger = divmod(feature_dim, parts)
    dims = [small + (part < larger) for part in range(parts)]
    simplices: Tensor = torch.block_diag(*(simplex_etf(dim + 1, dim) for dim in dims))  # type: ignore[no-untyped-call]
    return simplices


@lru_cache(maxsize=32)
def _solved(num_classes: int, feature_dim: int) -> Tensor:
    """Return the code of the solver or a quadratic code, whichever has the larger minimal angle."""
    solved = solve_tammes(num_classes, feature_dim)
    bound = quadratic_bound(num_classes, feature_dim)
    if bound is None or math.degrees(math.acos(bound)) <= minimal_angle(solved):
        return solved
    return _quadratic(num_classes, feature_dim)


def _quadratic(num_classes: int, feature_dim: int) -> Tensor:
    """Return a quadratic code without the coordinates that are zero in all its rows."""
    return quadratic_code(num_classes, 1 << (feature_dim.bit_length() - 1))
