"""Random rotations: matrices with orthonormal columns, uniformly distributed (Haar)."""

import torch
from torch import Tensor


def haar_frame(dim: int, columns: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a matrix with orthonormal columns, uniformly over all such matrices.

    Why uniformly: features after a ReLU are non-negative, so the rotation of the frame decides which class vectors they
    can reach. Some public code orthonormalizes uniform random numbers in [0, 1). The first column is then near the
    vector of ones, and features can hardly reach one of the classes.

    Method: the product of one Householder reflection per column, each from its own Gaussian vector (Stewart 1980, "The
    efficient generation of random orthogonal matrices", section 3). The QR decomposition of a Gaussian matrix gives the
    same distribution, with twice the work. As in QR, each column needs the sign of R's diagonal, or the result is not
    Haar (Mezzadri 2007, "How to generate random matrices from the classical compact groups", section 5). The columns
    are orthogonal up to rounding for every draw.

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
        raise ValueError(f"columns must be 1 to {dim} for orthonormal columns in {dim} dimensions, got {columns}")
    # On the CPU whatever the default device is, because a CPU generator draws only there. In column j the entries from
    # row j on are the vector that reflection j maps to axis j.
    drawn = torch.randn(dim, columns, dtype=torch.float64, generator=generator, device="cpu").tril_()
    first = drawn.diagonal().clone()
    # R's diagonal, with the sign that avoids cancellation in the subtraction below.
    on_axis = torch.linalg.vector_norm(drawn, dim=0).copysign_(-first)
    drawn /= first - on_axis  # LAPACK's form: the first entry of a reflector is 1 and is not stored
    frame: Tensor = torch.linalg.householder_product(drawn, 1 - first / on_axis)
    frame *= on_axis.sign()
    return frame
