"""Haar-distributed orthonormal frames."""

import torch
from torch import Tensor


def haar_frame(dim: int, columns: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a matrix with orthonormal columns, uniformly over all such matrices.

    Why it matters: features behind a ReLU are non-negative, so which class vectors they can reach depends on the
    rotation of the frame. Orthonormalizing *uniform* random numbers, as some public code does, leaves the first column
    near the ones vector and one class nearly out of reach.

    Method: the product of one Householder reflection a column, each drawn from a Gaussian vector of its own (Stewart
    1980, "The efficient generation of random orthogonal matrices", section 3). That is what the QR decomposition of a
    Gaussian matrix gives, whose reflections are independent of one another, without the half of its work that finds
    them; and like there the result is not Haar until each column gets the sign of R's diagonal (Mezzadri 2007, "How to
    generate random matrices from the classical compact groups", section 5). Orthogonal to rounding, whatever was drawn.

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
    # On the CPU even where the default device is another: a CPU generator draws nowhere else. Column j uses its
    # entries from row j on: the vector that reflection j sends along axis j, in what the earlier ones leave free.
    drawn = torch.randn(dim, columns, dtype=torch.float64, generator=generator, device="cpu").tril_()
    first = drawn.diagonal().clone()
    # R's diagonal, with the sign that keeps the subtraction below from canceling.
    on_axis = torch.linalg.vector_norm(drawn, dim=0).copysign_(-first)
    drawn /= first - on_axis  # LAPACK's form: the reflector with a one, not stored, in its first place
    frame: Tensor = torch.linalg.householder_product(drawn, 1 - first / on_axis)
    frame *= on_axis.sign()
    return frame
