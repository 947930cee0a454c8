"""How far given class vectors are from a geometry, in any rotation and order of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.seeds import stream

_ROWS_CHECKED = 256


def simplex_error(frame: Tensor) -> float:
    """Return how far class vectors W (K, D') are from a simplex ETF, tested with one random vector v in O(K D').

    The value is the relative error of W W^T v, which for an ETF is (K v - sum(v)) / (K - 1).
    """
    w = frame.detach().to(torch.float64)
    v = probe(w)
    expected = (w.shape[0] * v - v.sum()) / (w.shape[0] - 1)
    return float(torch.linalg.vector_norm(w @ (w.T @ v) - expected) / torch.linalg.vector_norm(expected))


def error_of_cosines(frame: Tensor, possible: Tensor) -> float:
    """Return the largest error of the rows' lengths, which must be 1, and of the cosines between two rows.

    The error of a cosine is its distance from the nearest possible one. With more than 256 rows, only the cosines
    between 256 random rows and all rows are computed.

    Args:
        frame: Class vectors as rows (K, D').
        possible: The cosines that two rows may have (C,), in ascending order.

    Example:
        >>> error_of_cosines(torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([-1.0, 0.0]))
        0.0
    """
    w = frame.detach().to(torch.float64)
    grid = possible.to(w)
    rows = torch.randperm(len(w), generator=stream(0, "frame", 1), device="cpu")[:_ROWS_CHECKED].to(w.device)
    cosines = w.index_select(0, rows) @ w.T
    own = torch.arange(len(rows), device=w.device), rows
    lengths = (cosines[own] - 1).abs().max()
    middles = (grid[1:] + grid[:-1]) / 2
    distances = (cosines - grid[torch.bucketize(cosines, middles)]).abs()
    distances[own] = 0
    norms = (torch.linalg.vector_norm(w, dim=1) - 1).abs().max()
    return float(torch.stack([lengths, norms, distances.max()]).max())


def probe(frame: Tensor) -> Tensor:
    """Return a random vector (K,) with mean 1, always the same: a product with it tests a Gram matrix.

    The Gram matrices of an ETF and of orthogonal rows differ most on the vector of ones.
    """
    drawn = torch.randn(len(frame), dtype=frame.dtype, generator=stream(0, "frame", 1), device="cpu") + 1
    return drawn.to(frame.device)
