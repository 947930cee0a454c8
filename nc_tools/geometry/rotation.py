"""Haar-distributed orthonormal frames."""

import torch
from torch import Tensor


def haar_frame(dim: int, columns: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a matrix with orthonormal columns, uniformly over all such matrices.

    Why it matters: features behind a ReLU are non-negative, so which class vectors they can reach depends on the
    rotation of the frame. Orthonormalising *uniform* random numbers, as some public code does, leaves the first column
    near the ones vector and one class nearly out of reach.

    Method: QR of a Gaussian matrix, with each column's sign set by the diagonal of R, without which the result is not
    Haar (Mezzadri 2007, "How to generate random matrices from the classical compact groups", section 5).

    Args:
        dim: Rows D.
        columns: Columns, at most ``dim``.
        generator: CPU generator; the global one if None.

    Returns:
        (dim, columns), float64, Q^T Q = I.

    Raises:
        ValueError: If ``columns`` is not between 1 and ``dim``.

    Example:
        >>> q = haar_frame(5, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(q.T @ q, torch.eye(3, dtype=q.dtype), atol=1e-12))
        True
    """
    if not 1 <= columns <= dim:
        raise ValueError(f"an orthonormal frame in {dim} dimensions has 1 to {dim} columns, got {columns}")
    # On the CPU even where the default device is another: a CPU generator draws nowhere else.
    gaussian = torch.randn(dim, columns, dtype=torch.float64, generator=generator, device="cpu")
    q, r = torch.linalg.qr(gaussian)
    sign = torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q.dtype)
    frame: Tensor = q * sign
    return frame
